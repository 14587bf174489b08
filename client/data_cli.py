"""Commands that look at a hospital's own data: check, sort, export-masks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from client.policy import held_to, load_policy
from client.sentences import errors, sentences
from client.site import load_site
from protocol.config import Preprocessing, load_study
from protocol.errors import ConfigError
from protocol.yaml_files import parse

if TYPE_CHECKING:
    from client.check import Report
    from client.cohort import Patient
    from client.quality_limits import QualityLimits

__all__ = ["check_command", "export_masks_command", "sort_command"]

console = Console()


def check_command(
    site_dir: Annotated[Path, typer.Argument(help="Directory with site.yaml.")],
    study: Annotated[
        Path | None, typer.Option(help="Study file whose preprocessing to use.")
    ] = None,
    spacing: Annotated[float | None, typer.Option(help="In-plane pixel spacing, mm.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the crop, pixels.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with images to this file.")
    ] = None,
) -> None:
    """Read the hospital's data as a study would, and say what is usable and what is not.

    Exit code 0 if the hospital could train a stage, else 1.
    """
    # Here, as what reads images takes a second to load, which every other command would wait for.
    from client.check import examine
    from client.check_tables import tables
    from client.cohort import load_cohort

    with sentences():
        base = load_study(study).preprocessing if study else Preprocessing()
        given = {"spacing_mm": spacing, "crop_px": crop}
        changed = {key: value for key, value in given.items() if value is not None}
        preprocessing = parse(Preprocessing, base.model_dump() | changed, "--spacing/--crop")
        config = load_site(site_dir)
        config = held_to(config, load_policy(site_dir, config))
        with _reading(config.name) as tell:
            cohort = load_cohort(site_dir, preprocessing, tell)
        report = examine(cohort, config, site_dir)
        if html is not None:
            _write_page(html, report, cohort.patients, config.quality)
    for table in tables(report):
        console.print(table)
    if not report.trains:
        errors.print(
            f"[bold red]{report.site} cannot train[/]: it has neither masks nor outcomes with "
            "events; add masks or outcomes to site.yaml."
        )
        raise typer.Exit(1)
    console.print(f"[bold green]{report.site} can train[/]: {', '.join(report.trains)}.")


def export_masks_command(
    site_dir: Annotated[Path, typer.Argument(help="Directory with site.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for the DICOM SEG files.")],
    study: Annotated[
        Path | None, typer.Option(help="Study file whose preprocessing and network to use.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the study's segmentation network.")
    ] = None,
) -> None:
    """Write the masks as a study sees them, back on the patients' images, as DICOM SEG.

    The expert's masks; with --weights (and --study) those a network draws.
    """
    # Here, as torch and highdicom take seconds to load.
    from client.segment_export import export_masks
    from client.segment_network import load_segment

    with sentences():
        settings = load_study(study) if study else None
        if weights is not None and settings is None:
            raise ConfigError("--weights needs --study, which says which network they belong to.")
        segment = None
        if weights is not None and settings is not None:
            segment = load_segment(weights, settings.segment, load_site(site_dir))
        preprocessing = settings.preprocessing if settings else Preprocessing()
        done = export_masks(site_dir, preprocessing, out, segment)
    console.print(f"{done.files} files of {done.patients} patients in {out}")
    console.print("they name the patients as the images do and are for this hospital only")


def sort_command(
    site_dir: Annotated[Path, typer.Argument(help="Directory with site.yaml.")],
    csv: Annotated[
        Path | None, typer.Option(help="Also write the list to this file, to fill in overrides.")
    ] = None,
) -> None:
    """List every series: what it is taken for, how surely, and why.

    A person overrules it in the table that images.overrides in site.yaml names.
    """
    # Here, as torch takes seconds to load, which every other command would wait for.
    from client.series_list import list_series, write_list

    with sentences():
        config = load_site(site_dir)
        with _reading(config.name) as tell:
            rows, refused = list_series(site_dir, tell)
        if csv is not None:
            write_list(csv, rows)
    table = Table("series", "images", "sequence", "view", "confidence", "why", title=config.name)
    for row in rows:
        part = row.part
        found = ("ignored", "") if part.ignored else (part.sequence, part.view)
        colour = "[yellow]" if row.unsure else ""
        table.add_row(
            row.series, str(row.images), *found, f"{colour}{part.confidence:.2f}", part.reason
        )
    console.print(table)
    unsure = sum(row.unsure for row in rows)
    for reason, count in sorted(refused.items()):
        console.print(f"not sorted: {count} files, {reason}")
    console.print(f"{len(rows)} series or parts of series, {unsure} of them unsure")


@contextmanager
def _reading(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while files are read; yields what is called with (done, total)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"reading {name}", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _write_page(
    path: Path, report: "Report", patients: "Sequence[Patient]", limits: "QualityLimits"
) -> None:
    from client.check_page import write_page

    try:
        write_page(path, report, patients, limits)
    except OSError as error:
        raise ConfigError(
            f"the page cannot be written ({error.strerror}); give --html a file in a folder that "
            "exists and can be written."
        ) from error
    console.print(f"page: {path}; it shows patients and is for this hospital only")
