"""``concors-server watch`` and ``dashboard``: look at a run without touching it."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

__all__ = ["watch"]

REFRESH_S = 1.0


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
