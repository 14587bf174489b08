"""A study from the first question to the report."""

from importlib.metadata import version
from pathlib import Path

from flwr.serverapp import Grid

from protocol.config import Study
from server.approval import write_approvals
from server.centre import Centre
from server.design_runs import run_designs
from server.findings import Findings, to_results
from server.heads import broken_logs
from server.hospitals import join
from server.manifest import MANIFEST_FILE
from server.progress import Progress
from server.recording import RecordedGrid, begin_log
from server.report import write_report
from server.results import Results, save_results
from server.sealing import seal_run
from server.stages import STAGES
from server.starting import hand_on

__all__ = ["run_study"]


def run_study(grid: Grid, study: Study, run_dir: Path) -> Results:
    """Run the stages, then the validation designs; write ``results.json`` and ``report.html``.

    Then everything is bound together in ``record.json`` (`server.sealing`).

    Training rounds that were finished before an interruption are read from their checkpoints; the
    other stages ask again. Either way the run ends with the same bytes.

    Raises
    ------
    QuorumError
        If too few hospitals joined, answered, or sent a valid update.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    manifest = run_dir / MANIFEST_FILE
    nodes = join(
        grid,
        study.hospitals.all,
        study.rounds.join_s,
        version=version("concors"),
        manifest=manifest.read_text(encoding="utf-8") if manifest.is_file() else None,
        note=lambda approvals: write_approvals(run_dir, approvals),
    )
    log = begin_log(run_dir, study, nodes)
    recorded = RecordedGrid(grid, nodes, log)
    centre = Centre(recorded, nodes, study, run_dir, Progress(run_dir))
    findings = _run_stages(centre)
    results = to_results(study, findings)
    if study.validate_.designs:

        def run(derived: Study, folder: Path) -> Results:
            return _run_derived(centre, derived, folder)

        designs = run_designs(centre, findings, run)
        results = results.model_copy(update={"designs": designs})
    results = results.model_copy(update={"broken_logs": broken_logs(log)})
    save_results(results, run_dir / "results.json")
    write_report(results.model_dump(), run_dir / "report.html")
    seal_run(run_dir, study, results)
    return results


def _run_stages(centre: Centre) -> Findings:
    findings = Findings()
    for name in centre.study.stages:
        STAGES[name](centre, findings)
    return findings


def _run_derived(centre: Centre, study: Study, folder: Path) -> Results:
    """Run a study of a validation design; its figures stand in the report of the study itself."""
    folder.mkdir(parents=True, exist_ok=True)
    hand_on(centre.run_dir, folder)
    nodes = {site: centre.nodes[site] for site in study.hospitals.all}
    own = Centre(centre.grid, nodes, study, folder, Progress(folder))
    results = to_results(study, _run_stages(own))
    save_results(results, folder / "results.json")
    return results
