"""How a command ends when something is wrong: one sentence, and exit code 1."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from protocol.errors import ConcorsError

__all__ = ["errors", "sentences"]

errors = Console(stderr=True)


@contextmanager
def sentences() -> Iterator[None]:
    """Turn an error of ours into one sentence and exit code 1."""
    try:
        yield
    except ConcorsError as error:
        errors.print(f"[bold red]{error.code}[/] {error.sentence}", highlight=False)
        raise typer.Exit(1) from error
