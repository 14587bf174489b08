"""Internal validation of the Cox regression: bootstrap with optimism correction, by sums.

Every hospital resamples its own training patients, the regression is refitted to the resamples in
the same questions as the first time, and each refitted model's C on its resample minus its C on the
patients as they are says by how much a model flatters itself (Harrell, Lee & Mark, Stat Med
1996;15:361, section 6). Pairs are those within hospitals.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protocol.errors import QuorumError, TrainingError
from protocol.stats import PairCounts, merge_all
from server.centre import Centre
from server.cox_questions import CoxQuestions, HospitalsLeft
from server.design_results import Optimism
from server.findings import Findings, config_sha256
from server.regression_results import RegressionResults
from strategies.cox import fit
from strategies.cox_penalty import Penalty

__all__ = ["correct_optimism", "optimism"]

FloatArray = npt.NDArray[np.float64]
Values = tuple[float, float]
DESIGN = "design bootstrap"


def optimism(
    apparent: PairCounts, replicates: list[Values], *, patients: int, failed: int = 0
) -> Optimism:
    """Return the corrected C.

    Parameters
    ----------
    apparent : PairCounts
        The model on the patients it was fitted to.
    replicates : list of (float, float)
        C of each refitted model on its own resample, and on the patients as they are.
    patients : int
        On whom the model was fitted.
    failed : int
        Resamples that gave no model.

    Raises
    ------
    TrainingError
        If no pair is comparable.
    """
    c_index = apparent.c_index
    if not apparent.comparable:
        raise TrainingError(
            "No hospital told of a comparable pair of its training patients, so there is nothing "
            "to correct; hospitals with few events withhold theirs."
        )
    found = {"patients": patients, "events": apparent.num_events, "apparent": c_index}
    if not replicates:
        return Optimism(**found, corrected=c_index, failed=failed)
    drawn, original = np.array(replicates, np.float64).T
    gain = drawn - original
    mean, count = float(gain.mean()), len(gain)
    low, high = (np.quantile(drawn, [0.025, 0.975]) - mean).tolist() if count > 1 else (None, None)
    return Optimism(
        **found,
        optimism=mean,
        corrected=c_index - mean,
        optimism_se=float(gain.std(ddof=1) / np.sqrt(count)) if count > 1 else None,
        lower=low,
        upper=high,
        replicates=count,
        failed=failed,
    )


def correct_optimism(centre: Centre, findings: Findings, folder: Path) -> Optimism:
    """Refit the study's regression to resamples of its hospitals and correct its C.

    Replicates that were finished before an interruption are read from ``folder``. One without a
    finite fit, or that a hospital did not answer, is counted as failed and left out.

    Raises
    ------
    TrainingError
        If the study fitted no regression, or no hospital told of a pair.
    QuorumError
        If too few hospitals answered about the model itself.
    """
    fitted = findings.regression
    if fitted is None:
        raise TrainingError("There is no Cox regression to correct; add the stage regression.")
    beta = np.array(findings.agreed["cox"]["beta"], np.float64)
    asking = CoxQuestions(centre, findings, fitted.hospitals)
    # The first question may not lose hospitals: these are those of the fit.
    asking.rounds = 1
    try:
        apparent, _ = _pairs(asking, beta)
    except HospitalsLeft as error:
        raise QuorumError(
            "A hospital of the Cox regression no longer answers; resume when it is back."
        ) from error
    binding = f"{config_sha256(centre.study)} {beta.tolist()}"
    kept, total = _Kept(folder, binding), centre.study.validate_.optimism_replicates
    for replicate in range(1, total + 1):
        if replicate not in kept.values:
            kept.add(replicate, _replicate(asking, fitted, replicate, beta))
        centre.progress.step(DESIGN, replicate, total)
    values = [kept.values[replicate] for replicate in range(1, total + 1)]
    good = [value for value in values if value is not None]
    return optimism(apparent, good, patients=fitted.patients, failed=len(values) - len(good))


def _replicate(
    asking: CoxQuestions, fitted: RegressionResults, replicate: int, beta: FloatArray
) -> Values | None:
    section, asking.replicate, asking.sites = asking.section, replicate, fitted.hospitals
    try:
        first = asking.sums(beta)
        # A penalty counts patients, and of a resample about 63 % are different ones.
        strength = fitted.penalty * fitted.patients / max(first.num_patients, 1)
        found = fit(
            asking.sums,
            asking.num_columns,
            penalty=Penalty(strength, section.l1_ratio),
            start=beta,
            first=first,
            tolerance=section.tolerance,
            max_rounds=section.max_rounds,
        )
        drawn, original = _pairs(asking, found.beta)
    except (HospitalsLeft, QuorumError, TrainingError):
        return None
    if not (drawn.comparable and original.comparable):
        return None
    return drawn.c_index, original.c_index


def _pairs(asking: CoxQuestions, beta: FloatArray) -> tuple[PairCounts, PairCounts]:
    documents = asking.documents("concordance", beta)
    drawn, original = (
        merge_all([PairCounts.from_dict(document[key]) for document in documents])
        for key in ("drawn", "original")
    )
    return drawn, original


class _Kept:
    """Finished replicates on disk; those of another model are not looked at."""

    def __init__(self, folder: Path, binding: str) -> None:
        self._path, self._binding = folder / "replicates.json", binding
        self.values: dict[int, Values | None] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.is_file():
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["binding"] == binding:
                self.values = {
                    int(key): None if value is None else (value[0], value[1])
                    for key, value in content["values"].items()
                }

    def add(self, replicate: int, value: Values | None) -> None:
        self.values[replicate] = value
        text = json.dumps({"binding": self._binding, "values": self.values})
        partial = self._path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self._path)
