"""The regression with multiple imputation: a fit in each imputed data set, the fits pooled.

The hospitals fill their gaps by regressions that are drawn from their summed normal equations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from protocol.seeds import generator
from protocol.stats import merge_all
from protocol.stats.normal_equations import NormalEquations
from server.centre import Centre
from server.cox_questions import CoxQuestions, fit_once, missing_patients
from server.findings import Findings
from server.regression_results import RegressionResults, RegressionRow
from server.regression_rows import regression_results
from strategies.cox import CoxFit
from strategies.cox_inference import covariance
from strategies.imputation import Drawn, Pooled, chain, pool

__all__ = ["fit_imputed", "targets"]


def targets(centre: Centre, findings: Findings) -> list[str]:
    """Return what is to be imputed, covariates with fewest gaps first, then measurements."""
    missing = missing_patients(centre, findings)
    names = [name for name in centre.study.regression.covariates if missing[name] > 0]
    return [*sorted(names, key=lambda name: missing[name]), *centre.study.regression.measurements]


def fit_imputed(
    asking: CoxQuestions, gapped: Sequence[str], scales: dict[str, list[float]]
) -> tuple[RegressionResults, dict[str, Any]]:
    """Fit in every imputed data set and pool by Rubin's rules.

    Returns
    -------
    RegressionResults, dict
        As `server.regression.fit_regression`.

    Raises
    ------
    HospitalsLeft
        If a hospital no longer answers; begin again with the others.
    TrainingError
        If a covariate is known in too few patients, or a fit has no maximum.
    """
    study = asking.centre.study
    fits: list[CoxFit] = []
    for index in range(asking.section.imputations):

        def ask(steps: Sequence[Drawn], target: str, index: int = index) -> NormalEquations:
            asking.impute = {"index": index, "target": target, "steps": [vars(s) for s in steps]}
            documents = asking.documents("equations", np.zeros(asking.num_columns))
            asking.rounds += 1
            return merge_all([NormalEquations.from_dict(d["equations"]) for d in documents])

        rng = generator(study.seed, "regression/impute", round_index=index)
        steps = chain(ask, gapped, asking.section.iterations, rng)
        asking.impute = {"index": index, "target": "", "steps": [vars(step) for step in steps]}
        fits.append(fit_once(asking, fits[-1].beta if fits else None))
    asking.impute = None
    se = [np.sqrt(np.diag(covariance(found))) for found in fits]
    pooled = pool([found.beta for found in fits], se)
    plain = regression_results(asking, fits[0], None, None, scales)
    unit = np.array([scales[name][1] for name in fits[0].at.names])
    log_likelihood = float(np.mean([found.at.log_likelihood for found in fits]))
    update = {
        "rows": tuple(_row(name, pooled, j, unit[j]) for j, name in enumerate(fits[0].at.names)),
        "tests": {},
        "log_likelihood": log_likelihood,
        "null_log_likelihood": None,
        "imputations": len(fits),
    }
    return plain.model_copy(update=update), asking.question("sums", pooled.beta, None)


def _row(name: str, pooled: Pooled, j: int, unit: float) -> RegressionRow:
    return RegressionRow(
        name=name,
        beta=pooled.beta[j] / unit,
        se=pooled.se[j] / unit,
        lower=pooled.lower[j] / unit,
        upper=pooled.upper[j] / unit,
        z=pooled.beta[j] / pooled.se[j],
        p=pooled.p[j],
        missing_information=pooled.missing_information[j],
    )
