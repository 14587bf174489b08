"""The SuperLink as a consortium runs it: ``python -m server.superlink DIR --own-port N ...``.

One application behind two listeners (`server.superlink.gates`). Flower's own launcher has one
listener, and options that a consortium must not use; so this file makes the application itself,
from modules that flwr does not call public: it is pinned to one version, and what makes the
application is used in this folder only.
"""

import argparse
import asyncio
import importlib
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.main import create_app

from deployment.control import token_of
from deployment.flower import HOST
from server.consortium import Consortium, load, split_address
from server.superlink.access_log import AccessLog
from server.superlink.database_log import keep_empty
from server.superlink.gates import App, fleet_gate, own_gate
from server.superlink.shortcut import shortened
from server.superlink.state import adapt

__all__ = ["main"]

RELOAD_S = 2.0
# Seconds that a connection without a request is kept; nodes ask every few seconds.
KEEP_ALIVE_S = 30
# Far more than a consortium has nodes; past it callers are told to come again.
MAX_CONNECTIONS = 1000


class _Server(uvicorn.Server):
    """A server that leaves the signals to us, for there are two in this process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="server.superlink")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--own-port", type=int, required=True)
    parser.add_argument("--secret", type=Path, required=True)
    given = parser.parse_args()
    consortium = load(given.directory)
    secret = given.secret.read_bytes()
    adapt()
    app = _application(consortium, given.own_port, secret)
    asyncio.run(_serve(consortium, app, given.own_port, token_of(secret)))


def _application(consortium: Consortium, own_port: int, secret: bytes) -> App:
    # The package exports a function under the name of this module.
    launcher = importlib.import_module("flwr.superlink.cli.flower_superlink")
    config = SuperLinkLifespanConfig(
        host=HOST,
        port=own_port,
        database=str(consortium.database),
        # Only with both is a server app independent of this process and of strangers.
        isolation=ISOLATION_MODE_PROCESS,
        superexec_auth_secret=secret,
        enable_supernode_auth=True,
        runtime_dependency_install=False,
        simulation=False,
        insecure=False,
        authn_plugin=load_control_authn_plugin(),
        ssl_ca_certfile=str(consortium.authority),
        ssl_certfile=str(consortium.certificate),
        ssl_keyfile=str(consortium.certificate_key),
        # What remains belongs to interfaces that are not started: gRPC, health, event log.
        control_address="",
        fleet_api_address=None,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        health_server_address=None,
        certificates=None,
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
    )
    return shortened(create_app(config, launcher.SuperLinkLifespan))


async def _serve(consortium: Consortium, app: App, own_port: int, token: str) -> None:
    log = AccessLog(consortium.access_log)
    _, port = split_address(consortium.settings.address)
    port = consortium.settings.listen_port or port
    own = _server(consortium, own_gate(app, token), HOST, own_port, lifespan="on")
    fleet = _server(
        consortium, fleet_gate(app, log), consortium.settings.listen, port, lifespan="off"
    )
    loop = asyncio.get_running_loop()

    def end() -> None:
        own.should_exit = fleet.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    beside = (
        asyncio.create_task(_take_new_certificates(consortium, (own, fleet))),
        asyncio.create_task(keep_empty(consortium.database)),
    )
    try:
        await asyncio.gather(own.serve(), fleet.serve())
    finally:
        for task in beside:
            task.cancel()
        log.close()


def _server(
    consortium: Consortium, app: App, host: str, port: int, **options: Any
) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        ssl_certfile=consortium.certificate,
        ssl_keyfile=consortium.certificate_key,
        log_level="warning",
        access_log=False,
        ws="none",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
        limit_concurrency=MAX_CONNECTIONS,
        **options,
    )
    config.load()
    context = config.ssl
    if context is None:
        raise RuntimeError("a listener without TLS")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return _Server(config)


async def _take_new_certificates(
    consortium: Consortium, servers: tuple[uvicorn.Server, ...]
) -> None:
    """Serve new connections with a certificate that was renewed; the open ones are not touched."""
    seen = consortium.certificate.stat().st_mtime_ns
    while True:
        await asyncio.sleep(RELOAD_S)
        newest = consortium.certificate.stat().st_mtime_ns
        if newest == seen:
            continue
        for server in servers:
            context = server.config.ssl
            if context is not None:
                context.load_cert_chain(consortium.certificate, consortium.certificate_key)
        seen = newest


if __name__ == "__main__":
    main()
