"""``concors-server``: what the coordinator of a consortium types."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployment.logs import configure
from protocol.config import load_study
from protocol.errors import ConcorsError
from server.deployment_cli import add_commands
from server.plan_cli import plan
from server.watching.cli import dashboard, watch

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The coordinating centre.")


@app.callback()
def root() -> None:
    """The coordinating centre of a consortium."""
    configure()


@app.command()
def check(
    study_file: Annotated[Path, typer.Argument(help="The study's YAML file.")],
) -> None:
    """Check a study file and say what it will do and send."""
    # Here, as NumPy takes a moment to load, which every other command would wait for.
    from server.describe import describe, hash_line

    study = load_study(study_file)
    Console().print(describe(study))
    Console().print(hash_line(study), soft_wrap=True, highlight=False)


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
    from server.report.write import write_report
    from server.results import load_results
    from server.sealing import note_report

    path = run_dir / "report.html"
    results = load_results(run_dir / "results.json").model_dump()
    write_report(results, path, audit=None if audit is None else load_audit(audit))
    note_report(run_dir)
    Console().print(f"report: {path}", soft_wrap=True)


@app.command()
def verify(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.")],
    site_log: Annotated[
        list[Path] | None,
        typer.Option(help="A copy of a hospital's .concors/audit.jsonl; once for each hospital."),
    ] = None,
) -> None:
    """Check that nothing of a run was changed: log, record, weights, results, report, cards.

    One line a thing, OK or the first that is wrong; exit code 1 if anything is.
    """
    from server.verification import verify_run

    checks = list(verify_run(run_dir, site_log or ()))
    for check in checks:
        Console().print(str(check), soft_wrap=True, highlight=False, markup=False)
    if not all(check.good for check in checks):
        raise typer.Exit(1)


app.command("plan")(plan)
add_commands(app)
app.command("watch")(watch)
app.command("dashboard")(dashboard)


def main() -> None:
    """Run the command line; an error of ours is one sentence and exit code 1."""
    try:
        app()
    except ConcorsError as error:
        Console(stderr=True).print(f"[bold red]{error.code}[/] {error.sentence}", soft_wrap=True)
        raise SystemExit(1) from error
