"""From a fitted Cox regression to its results: units, intervals, tests."""

from collections.abc import Sequence

import numpy as np

from protocol.errors import TrainingError
from protocol.stats.cox_hazard import CoxHazard
from protocol.stats.cox_residuals import CoxResiduals
from server.cox_questions import CoxQuestions
from server.regression_results import ChiSquareTest, RegressionResults, RegressionRow
from strategies.cox import CoxFit
from strategies.cox_inference import (
    ChiSquare,
    Coefficient,
    coefficients,
    likelihood_ratio_test,
    proportional_hazards_test,
    score_test,
    wald_test,
)

__all__ = ["regression_results"]


def regression_results(
    asking: CoxQuestions,
    found: CoxFit,
    residuals: CoxResiduals | None,
    hazard: CoxHazard | None,
    scales: dict[str, list[float]],
) -> RegressionResults:
    """Return the results of one fit, coefficients per unit of each covariate.

    Parameters
    ----------
    residuals : CoxResiduals or None
        For robust standard errors and the check of proportional hazards.
    hazard : CoxHazard or None
        Of the pooled form.
    scales : dict
        Mean and sd of each covariate, by which it was standardised.
    """
    section = asking.section
    # An indicator is no measurement of the dictionary and is not standardised.
    sd = [scales[name][1] if name in scales else 1.0 for name in found.at.names]
    return RegressionResults(
        form=section.form,
        ties=section.ties,
        penalty=found.penalty.strength,
        l1_ratio=found.penalty.l1_ratio,
        hospitals=asking.sites,
        patients=found.at.num_patients,
        events=found.at.num_events,
        rounds=asking.rounds,
        log_likelihood=found.at.log_likelihood,
        null_log_likelihood=None if found.null is None else found.null.log_likelihood,
        coarse_months=0.0 if asking.grid is None else asking.grid.coarse_months,
        rows=_rows(found, residuals, sd),
        tests=_tests(found, residuals),
        baseline_months=() if hazard is None else hazard.grid_months,
        baseline_cumulative_hazard=(
            () if hazard is None else tuple(np.cumsum(hazard.hazard).tolist())
        ),
    )


def _rows(
    found: CoxFit, residuals: CoxResiduals | None, sd: Sequence[float]
) -> tuple[RegressionRow, ...]:
    if found.penalty.lasso > 0:
        return tuple(
            RegressionRow(name=name, beta=beta / unit)
            for name, beta, unit in zip(found.at.names, found.beta.tolist(), sd, strict=True)
        )
    plain = coefficients(found)
    robust: Sequence[Coefficient | None] = [None] * len(plain)
    drift: Sequence[ChiSquare | None] = [None] * len(plain)
    if residuals is not None:
        robust = coefficients(found, residuals=residuals)
        drift = _drift(found, residuals)[0] or drift
    return tuple(
        RegressionRow(
            name=row.name,
            beta=row.beta / unit,
            se=row.se / unit,
            lower=row.lower / unit,
            upper=row.upper / unit,
            z=row.z,
            p=row.p,
            robust_se=None if sandwich is None else sandwich.se / unit,
            drift_p=None if drifts is None else drifts.p,
        )
        for row, sandwich, drifts, unit in zip(plain, robust, drift, sd, strict=True)
    )


def _drift(
    found: CoxFit, residuals: CoxResiduals
) -> tuple[tuple[ChiSquare, ...], ChiSquare | None]:
    try:
        return proportional_hazards_test(found, residuals)
    except TrainingError:
        # All events at one time: there is nothing to drift over.
        return (), None


def _tests(found: CoxFit, residuals: CoxResiduals | None) -> dict[str, ChiSquareTest]:
    if found.penalty.strength > 0:
        return {}
    tests = {"wald": wald_test(found)}
    if found.null is not None:
        tests["likelihood_ratio"] = likelihood_ratio_test(found)
        tests["score"] = score_test(found)
    together = None if residuals is None else _drift(found, residuals)[1]
    if together is not None:
        tests["proportional_hazards"] = together
    return {
        name: ChiSquareTest(statistic=test.statistic, degrees=test.degrees, p=test.p)
        for name, test in sorted(tests.items())
    }
