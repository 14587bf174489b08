"""A study from the first question to the report."""

from importlib.metadata import version
from pathlib import Path

from flwr.serverapp import Grid

from protocol.config import Study
from server.centre import Centre
from server.findings import Findings, to_results
from server.hospitals import join
from server.progress import Progress
from server.report import write_report
from server.results import Results, save_results
from server.stages import STAGES

__all__ = ["run_study"]


def run_study(grid: Grid, study: Study, run_dir: Path) -> Results:
    """Run the stages in order, write ``results.json`` and ``report.html``, return the results.

    Training rounds that were finished before an interruption are read from their checkpoints; the
    other stages ask again. Either way the run ends with the same bytes.

    Raises
    ------
    QuorumError
        If too few hospitals joined, answered, or sent a valid update.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    nodes = join(
        grid,
        study.hospitals.all,
        study.rounds.join_s,
        version=version("concors"),
    )
    centre = Centre(grid, nodes, study, run_dir, Progress(run_dir))
    findings = Findings()
    for name in study.stages:
        STAGES[name](centre, findings)
    results = to_results(study, findings)
    save_results(results, run_dir / "results.json")
    write_report(results.model_dump(), run_dir / "report.html")
    return results
