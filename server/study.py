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
from server.progress import JOINING, STAGE, Progress
from server.recording import RecordedGrid, begin_log
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
    progress = Progress(run_dir)
    (run_dir / "study.json").write_text(study.model_dump_json(by_alias=True) + "\n", "utf-8")
    with progress.until_the_end():
        return _run(grid, study, run_dir, progress)


def _run(grid: Grid, study: Study, run_dir: Path, progress: Progress) -> Results:
    nodes = _join(grid, study, run_dir, progress)
    log = begin_log(run_dir, study, nodes)
    centre = Centre(RecordedGrid(grid, nodes, log), nodes, study, run_dir, progress)
    findings = _run_stages(centre)
    results = to_results(study, findings)
    if study.validate_.designs:

        def run(derived: Study, folder: Path) -> Results:
            return _run_derived(centre, derived, folder)

        designs = run_designs(centre, findings, run)
        results = results.model_copy(update={"designs": designs})
    results = results.model_copy(update={"broken_logs": broken_logs(log)})
    save_results(results, run_dir / "results.json")
    # Here: at the top, no hospital would be asked before all that draws is loaded.
    from server.report.write import write_report

    write_report(results.model_dump(), run_dir / "report.html")
    seal_run(run_dir, study, results)
    return results


def _join(grid: Grid, study: Study, run_dir: Path, progress: Progress) -> dict[str, int]:
    sites, manifest = study.hospitals.all, run_dir / MANIFEST_FILE
    joined: list[str] = []

    def heard(site: str) -> None:
        joined.append(site)
        progress.heard(JOINING, len(joined), len(sites), site, None)

    progress.asked(JOINING, 0, len(sites), sites)
    return join(
        grid,
        sites,
        study.rounds.join_s,
        version=version("concors"),
        manifest=manifest.read_text(encoding="utf-8") if manifest.is_file() else None,
        note=lambda approvals: write_approvals(run_dir, approvals),
        on_joined=heard,
    )


def _run_stages(centre: Centre) -> Findings:
    findings = Findings()
    stages = centre.study.stages
    for index, name in enumerate(stages):
        centre.progress.step(STAGE, index, len(stages), name)
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
