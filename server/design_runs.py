"""Running a study's validation designs after the study itself, and what they add up to."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from protocol.config import Study
from protocol.designs import derive
from protocol.errors import QuorumError, TrainingError
from protocol.validation_config import Design
from server.centre import Centre
from server.design_results import DesignResults, DesignRun
from server.findings import Findings, config_sha256
from server.judgements import Overlap, Ranking
from server.optimism import correct_optimism
from server.results import Results, load_results

__all__ = ["run_designs", "summarised"]

Run = Callable[[Study, Path], Results]
FIELDS: dict[Design, str] = {
    "leave-one-hospital-out": "leave_one_out",
    "hospital-matrix": "matrix",
}


def run_designs(centre: Centre, findings: Findings, run: Run) -> DesignResults:
    """Run the designs of a finished study into ``designs/`` of its folder.

    A derived study that is finished is not run again. One that no model comes out of (a hospital
    with too few events for a regression alone, one that no longer answers) is told with its reason
    and tried again the next time; the others go on.

    Parameters
    ----------
    findings : Findings
        Of the study itself.
    run : callable
        ``(study, folder) -> Results``: runs an ordinary study and writes its ``results.json``.
    """
    found: dict[str, object] = {}
    for design in centre.study.validate_.designs:
        folder = centre.run_dir / "designs" / design
        if design == "bootstrap":
            try:
                found["optimism"] = correct_optimism(centre, findings, folder)
            except (QuorumError, TrainingError) as error:
                found["optimism_reason"] = error.sentence
        else:
            found[FIELDS[design]] = _run_all(centre, design, folder, run)
    return DesignResults.model_validate(found)


def _run_all(centre: Centre, design: Design, folder: Path, run: Run) -> tuple[DesignRun, ...]:
    studies = derive(centre.study, design)
    runs = []
    for done, (name, study) in enumerate(studies.items(), start=1):
        runs.append(_run_one(name, study, folder / name, run))
        centre.progress.step(f"design {design}", done, len(studies), name)
    return tuple(runs)


def _run_one(name: str, study: Study, folder: Path, run: Run) -> DesignRun:
    try:
        results = _finished(study, folder / "results.json") or run(study, folder)
    except (QuorumError, TrainingError) as error:
        return DesignRun(name=name, train=study.hospitals.train, reason=error.sentence)
    return summarised(name, study, results)


def _finished(study: Study, path: Path) -> Results | None:
    if not path.is_file():
        return None
    results = load_results(path)
    ours = (config_sha256(study), version("concors"))
    return results if (results.study.config_sha256, results.study.code_version) == ours else None


def summarised(name: str, study: Study, results: Results) -> DesignRun:
    """Return the figures of one derived study at every hospital that told of a patient."""
    sites = results.arms["federated"].sites
    judged = {site: sites[site] for site in study.hospitals.validating if site in sites}
    return DesignRun(
        name=name,
        train=study.hospitals.train,
        network={
            site: Ranking.of(part.pairs)
            for site, part in judged.items()
            if part.pairs is not None and part.pairs.num_patients
        },
        regression={
            site: Ranking.of(part.regression_pairs)
            for site, part in judged.items()
            if part.regression_pairs is not None and part.regression_pairs.num_patients
        },
        overlap={
            site: Overlap.of(part.overlap)
            for site, part in judged.items()
            if part.overlap is not None and part.overlap.moments.n.any()
        },
    )
