"""``concors-server``: what the coordinator of a consortium types."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from protocol.config import Segmentation, Sorting, Study, load_study
from protocol.errors import ConcorsError
from protocol.survival_config import Prognosis
from server.plan_cli import plan
from server.watching.cli import dashboard, watch

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The coordinating centre.")
MEGABYTE = 2**20


@app.callback()
def root() -> None:
    """The coordinating centre of a consortium."""


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
        megabytes = sum(array.nbytes for array in weights[stage](study).values()) / MEGABYTE
        # Its control variate goes with the model; what comes back of it is one number.
        down = megabytes * (2 if section.strategy.name == "scaffold" else 1)
        traffic = (
            f"{megabytes:.1f} MB down and up"
            if down == megabytes
            else (f"{down:.1f} MB down and {megabytes:.1f} MB up")
        )
        asked = "one hospital in turn" if section.strategy.ask == "in turn" else "all hospitals"
        table.add_row(
            stage,
            f"{section.network.name}, {section.rounds} rounds of {section.training.epochs} "
            f"epochs of {asked}, {section.strategy.name} by {section.strategy.weight_by}; "
            f"{traffic} per hospital and round",
        )
    rounds = study.rounds
    table.add_row("waits", f"{rounds.join_s:g} s to join, {rounds.deadline_s:g} s a round")
    table.add_row("quorum", f"{rounds.quorum:.0%} of the hospitals asked")
    follows = {"stop": "ends the study", "warn": "is told, and the study goes on"}
    table.add_row(
        "missing", f"{rounds.max_missed} rounds in a row, which {follows[rounds.on_missing]}"
    )
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
app.command("watch")(watch)
app.command("dashboard")(dashboard)


def main() -> None:
    """Run the command line; an error of ours is one sentence and exit code 1."""
    try:
        app()
    except ConcorsError as error:
        Console(stderr=True).print(f"[bold red]{error.code}[/] {error.sentence}", soft_wrap=True)
        raise SystemExit(1) from error
