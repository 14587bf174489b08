"""The regression stage at the centre: Newton's questions to the hospitals, and what they add up to.

A hospital that does not answer a later question is left out of the whole fit, which then starts
again from where the coefficients stood: sums of other patients never meet in one fit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.errors import TrainingError
from protocol.stats import merge_all
from protocol.stats.cox_hazard import CoxHazard
from protocol.stats.cox_residuals import CoxResiduals
from server.centre import Centre
from server.cox_questions import CoxQuestions, HospitalsLeft, fit_once
from server.findings import Findings
from server.imputed_regression import fit_imputed, targets
from server.penalty_choice import choose_penalty
from server.regression_results import RegressionResults
from server.regression_rows import regression_results
from strategies.cox import CoxFit

__all__ = ["fit_regression"]

FloatArray = npt.NDArray[np.float64]


def fit_regression(centre: Centre, findings: Findings) -> tuple[RegressionResults, dict[str, Any]]:
    """Fit the study's Cox regression on the hospitals that train.

    Returns
    -------
    RegressionResults
        Coefficients per unit of each covariate.
    dict
        ``agreed["cox"]`` of later stages: the standardised coefficients, to be judged.

    Raises
    ------
    QuorumError
        If too few hospitals answered; a hospital below its own minimum of patients or events
        refuses before it sends anything, and its sentence is in the error.
    TrainingError
        If there is no finite maximum, see `strategies.cox.fit`.
    """
    asking = CoxQuestions(centre, findings, centre.study.hospitals.train)
    scales = findings.agreed["scales"]
    start: FloatArray | None = None
    while True:
        try:
            if asking.section.missing == "impute":
                return fit_imputed(asking, targets(centre, findings), scales)
            curve = choose_penalty(asking)
            found = fit_once(asking, start)
            # The last question of a halved step may have stood elsewhere than the fit.
            hazard = _hazard(asking, found)
            residuals = _residuals(asking, found, hazard)
            break
        except HospitalsLeft:
            start = np.array(asking.beta, np.float64)
    results = regression_results(asking, found, residuals, hazard, scales)
    results = results.model_copy(update={"penalty_curve": curve})
    return results, asking.question("sums", found.beta, None)


def _hazard(asking: CoxQuestions, found: CoxFit) -> CoxHazard | None:
    if asking.section.form != "grid":
        return None
    if asking.grid is None or not np.array_equal(asking.grid.beta, found.beta):
        asking.sums(found.beta)
    if asking.grid is None:
        raise TrainingError("The pooled Cox regression has no risk sets; ask the hospitals again.")
    return asking.grid.hazard(asking.section.ties)


def _residuals(
    asking: CoxQuestions, found: CoxFit, hazard: CoxHazard | None
) -> CoxResiduals | None:
    if found.penalty.strength > 0:
        return None
    documents = asking.documents("residuals", found.beta, hazard)
    return merge_all([CoxResiduals.from_dict(document["residuals"]) for document in documents])
