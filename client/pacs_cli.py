"""``concors-client fetch``: from the hospital's image archive into its own store."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from protocol.errors import ConcorsError, ConfigError

if TYPE_CHECKING:
    from client.pacs.archive import StudyQuery
    from client.pacs.fetch import Summary
    from client.pacs.wanted import Entry

__all__ = ["fetch_command"]

INTERRUPTED = 130
MEGABYTE = 1_000_000
MAX_ROWS = 50

console = Console()
errors = Console(stderr=True)


def fetch_command(
    site_dir: Annotated[Path, typer.Argument(help="Directory with site.yaml.")],
    listed: Annotated[
        Path | None,
        typer.Option("--list", help="File of StudyInstanceUIDs or accession numbers, one a line."),
    ] = None,
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="First day of a query."),
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day of a query.")
    ] = None,
    modality: Annotated[str, typer.Option(help="Modality of a query.")] = "MR",
    description: Annotated[
        str, typer.Option(help="Study description of a query, with * and ?.")
    ] = "",
) -> None:
    """Fetch studies from the hospital's image archive into the site's own store.

    The section pacs of site.yaml says where the archive is, for example

        pacs: {protocol: dicomweb, host: pacs.example, port: 443, tls: {authority: ca.pem},
        credentials: {file: pacs.login}}

    or

        pacs: {protocol: c-get, host: pacs.example, port: 104, ae_title: PACS, own_ae_title: US}

    Started again, it goes on where it was. Exit code 0 only if everything wanted is in the store.
    """
    # The network libraries take seconds to import; the other commands need none of them.
    from client.pacs.fetch import fetch

    try:
        wanted = _wanted(listed, first, last, modality, description)
        with (
            _ends_cleanly(),
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            ) as progress,
        ):
            studies = progress.add_task("studies", total=None)
            images = progress.add_task("images of this study", total=None)

            def tell(done: int, total: int, done_images: int, total_images: int) -> None:
                progress.update(studies, completed=done, total=total)
                progress.update(images, completed=done_images, total=total_images)

            summary = fetch(site_dir, wanted, tell)
    except ConcorsError as error:
        errors.print(f"[bold red]{error.code}[/] {error.sentence}", highlight=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        errors.print("interrupted; the same command goes on where it was.")
        raise typer.Exit(INTERRUPTED) from error
    for table in _tables(summary):
        console.print(table)
    if not summary.is_whole:
        errors.print(
            "[bold red]not everything wanted is in the store[/]; start the same command again, "
            "it fetches only what is missing."
        )
        raise typer.Exit(1)
    console.print("[bold green]everything wanted is in the store[/]")


def _wanted(
    listed: Path | None,
    first: datetime | None,
    last: datetime | None,
    modality: str,
    description: str,
) -> "list[Entry] | StudyQuery":
    from client.pacs.wanted import days_query, read_list

    asks = first is not None or last is not None or bool(description)
    if listed is not None:
        if asks:
            raise ConfigError("give either --list or a query (--from, --to, --description).")
        return read_list(listed)
    if not asks:
        raise ConfigError("say which studies: --list, or --from, --to or --description.")
    return days_query(first and first.date(), last and last.date(), modality, description)


@contextmanager
def _ends_cleanly() -> Iterator[None]:
    """Have the end that a service manager or a batch queue asks for be like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tables(summary: "Summary") -> Iterator[Table]:
    table = Table(title="Fetched", show_header=False)
    rows = {
        "studies wanted": summary.wanted,
        "complete": summary.complete,
        "incomplete": len(summary.incomplete),
        "not in the archive": len(summary.absent),
        "images stored now": summary.stored,
        "there before": summary.present,
        "sent twice": summary.repeated,
        "refused": summary.refused.total(),
        "megabytes stored now": f"{summary.num_bytes / MEGABYTE:.1f}",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    yield table
    if summary.incomplete:
        table = Table("folder in the store", "why", title="Incomplete")
        for name, reason in summary.incomplete[:MAX_ROWS]:
            table.add_row(name, reason)
        if len(summary.incomplete) > MAX_ROWS:
            table.add_row("...", f"and {len(summary.incomplete) - MAX_ROWS} more")
        yield table
    if summary.absent:
        lines = ", ".join(map(str, sorted(summary.absent)[:MAX_ROWS]))
        table = Table(title="Not in the archive", show_header=False)
        table.add_row("lines of the list", lines)
        yield table
    if summary.refused:
        table = Table("why", "count", title="Files not let in")
        for reason, count in sorted(summary.refused.items()):
            table.add_row(reason, str(count))
        yield table
