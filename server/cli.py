"""``concors-server``: what the coordinator of a consortium types."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from protocol.arrays import Arrays, layout
from protocol.compression import Codec, encoded_size
from protocol.compression_config import Method
from protocol.config import Segmentation, Sorting, Study, load_study
from protocol.errors import ConcorsError
from protocol.survival_config import Prognosis
from server.plan_cli import plan

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The coordinating centre.")
MEGABYTE = 2**20


@app.callback()
def root() -> None:
    """The coordinating centre of a consortium."""


def _traffic(study: Study, strategy: str, arrays: Arrays) -> str:
    """Say how much a stage sends a hospital and round, once the hospital has the first model."""
    compression, model = study.rounds.compression, layout(arrays)
    whole = sum(array.nbytes for array in arrays.values())

    def size(method: Method) -> float:
        codec = Codec.of(method, compression.fraction)
        return (whole if codec is None else encoded_size(model, codec)) / MEGABYTE

    # Its control variate goes with the model; what comes back of it is one number.
    down = size(compression.down) * (2 if strategy == "scaffold" else 1)
    up = size(compression.up)
    if down == up:
        return f"{_megabytes(up)} MB down and up"
    return f"{_megabytes(down)} MB down and {_megabytes(up)} MB up"


def _megabytes(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _describe(study: Study) -> Table:
    from server.initial import prognosis_weights, segmentation_weights, sorting_weights

    table = Table(title=f"Study {study.name}, seed {study.seed}", show_header=False)
    table.add_row("train", ", ".join(study.hospitals.train))
    table.add_row("external", ", ".join(study.hospitals.external) or "none")
    table.add_row("stages", ", ".join(study.stages))
    weights = {
        "sort": sorting_weights,
        "segment": segmentation_weights,
        "prognosis": prognosis_weights,
    }
    sections: dict[str, Sorting | Segmentation | Prognosis] = {
        "sort": study.sort,
        "segment": study.segment,
        "prognosis": study.prognosis,
    }
    for stage, section in sections.items():
        if stage not in study.stages:
            continue
        traffic = _traffic(study, section.strategy.name, weights[stage](study))
        asked = "one hospital in turn" if section.strategy.ask == "in turn" else "all hospitals"
        table.add_row(
            stage,
            f"{section.network.name}, {section.rounds} rounds of {section.training.epochs} "
            f"epochs of {asked}, {section.strategy.name} by {section.strategy.weight_by}; "
            f"{traffic} per hospital and round",
        )
    compression = study.rounds.compression
    if compression.is_used:
        share = (
            f" (top-k: {compression.fraction:g})" if "top-k" in vars(compression).values() else ""
        )
        how = f"{compression.down} down, {compression.up} up{share}"
        table.add_row("compression", f"{how}; the first model goes down whole")
    rounds = study.rounds
    table.add_row("waits", f"{rounds.join_s:g} s to join, {rounds.deadline_s:g} s a round")
    table.add_row("quorum", f"{rounds.quorum:.0%} of the hospitals asked")
    return table


@app.command()
def check(
    study_file: Annotated[Path, typer.Argument(help="The study's YAML file.")],
) -> None:
    """Check a study file and say what it will do and send."""
    Console().print(_describe(load_study(study_file)))


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    audit: Annotated[
        Path | None,
        typer.Option(help="JSON file of a privacy audit, shown in a section of its own."),
    ] = None,
) -> None:
    """Write the report of a run again from its results."""
    from privacy.audit.document import load_audit
    from server.report import write_report
    from server.results import load_results

    path = run_dir / "report.html"
    results = load_results(run_dir / "results.json").model_dump()
    write_report(results, path, audit=None if audit is None else load_audit(audit))
    Console().print(f"report: {path}", soft_wrap=True)


app.command("plan")(plan)


def main() -> None:
    """Run the command line; an error of ours is one sentence and exit code 1."""
    try:
        app()
    except ConcorsError as error:
        Console(stderr=True).print(f"[bold red]{error.code}[/] {error.sentence}", soft_wrap=True)
        raise SystemExit(1) from error
