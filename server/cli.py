"""``concors-server``: what the coordinator of a consortium types."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from protocol.config import load_study
from protocol.errors import ConcorsError
from server.deployment_cli import add_commands
from server.describe import describe, hash_line
from server.plan_cli import plan

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The coordinating centre.")


@app.callback()
def root() -> None:
    """The coordinating centre of a consortium."""


@app.command()
def check(
    study_file: Annotated[Path, typer.Argument(help="The study's YAML file.")],
) -> None:
    """Check a study file and say what it will do and send."""
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
    from server.report import write_report
    from server.results import load_results

    path = run_dir / "report.html"
    results = load_results(run_dir / "results.json").model_dump()
    write_report(results, path, audit=None if audit is None else load_audit(audit))
    Console().print(f"report: {path}", soft_wrap=True)


app.command("plan")(plan)
add_commands(app)


def main() -> None:
    """Run the command line; an error of ours is one sentence and exit code 1."""
    try:
        app()
    except ConcorsError as error:
        Console(stderr=True).print(f"[bold red]{error.code}[/] {error.sentence}", soft_wrap=True)
        raise SystemExit(1) from error
