"""``concors-server watch`` and ``dashboard``: look at a run without touching it."""

import ipaddress
import socket
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from protocol.errors import ConfigError

__all__ = ["dashboard", "watch"]

REFRESH_S = 1.0
PORT = 8470


def watch(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.")],
) -> None:
    """Show a run until it ends; in a pipe, and of a finished run, one table.

    Exit code 0, 1 if the run failed, 2 if it finished without one of its hospitals.
    """
    from server.watching.reading import state_of
    from server.watching.table import run_table

    console = Console()
    state = state_of(run_dir)
    if not console.is_terminal or state.is_over:
        console.print(run_table(state, console.width))
        raise typer.Exit(state.exit_code)
    try:
        with Live(run_table(state, console.width), console=console, auto_refresh=False) as live:
            while not state.is_over:
                time.sleep(REFRESH_S)
                state = state_of(run_dir)
                live.update(run_table(state, console.width), refresh=True)
    except KeyboardInterrupt:
        # Whoever looks away stops looking; the run goes on.
        raise typer.Exit(0) from None
    raise typer.Exit(state.exit_code)


def dashboard(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or a server's directory.")],
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.", min=0, max=65535)] = (
        PORT
    ),
    host: Annotated[
        str, typer.Option(help="IP address to listen at; others than loopback need TLS.")
    ] = "127.0.0.1",
    certificate: Annotated[
        Path | None, typer.Option(help="TLS certificate, PEM.", exists=True, dir_okay=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Its private key, PEM.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Show a run, or all runs of a server, in a browser, until Ctrl-C."""
    import uvicorn

    from server.watching.access import Access
    from server.watching.dashboard import dashboard_app, find_runs
    from server.watching.pressing import presses_for

    find_runs(folder)
    _check_exposure(host, certificate, key)
    listener = _listen(host, port)
    with listener:
        access = Access(listener.getsockname()[1], secure=certificate is not None)
        app = dashboard_app(folder, access, presses_for(folder), host=host)
        scheme = "https" if access.secure else "http"
        link = f"{scheme}://{host}:{access.port}/?token={access.token}"
        # As it is, on one line: it is copied, and a coloured or broken link cannot be.
        print(f"Open {link}", flush=True)
        settings = uvicorn.Config(
            app,
            # The access log would hold the token.
            access_log=False,
            log_level="warning",
            server_header=False,
            # Nothing here speaks WebSocket.
            ws="none",
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        uvicorn.Server(settings).run(sockets=[listener])


def _check_exposure(host: str, certificate: Path | None, key: Path | None) -> None:
    try:
        loopback = ipaddress.IPv4Address(host).is_loopback
    except ValueError as error:
        raise ConfigError(
            f"'{host}' is no IPv4 address; give --host one of this machine's, e.g. 127.0.0.1."
        ) from error
    if (certificate is None) != (key is None):
        raise ConfigError("TLS needs both --certificate and --key; give the other one too.")
    if certificate is None and not loopback:
        raise ConfigError(
            f"At {host} others on the network could read the link and the study; give "
            "--certificate and --key, or stay at 127.0.0.1 and come through ssh -L."
        )


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Whoever opens the link at once waits, and is not refused.
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Port {port} at {host} cannot be had ({error.strerror}); give another --port, or 0 "
            "for a free one."
        ) from error
    return listener
