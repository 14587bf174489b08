"""The regression stage at the centre: Newton's questions to the hospitals, and what they add up to.

A hospital that does not answer a later question is left out of the whole fit, which then starts
again from where the coefficients stood: sums of other patients never meet in one fit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.errors import TrainingError
from protocol.stats import Moments, merge_all
from protocol.stats.cox import CoxSums
from protocol.stats.cox_grid import CoxGridSums
from protocol.stats.cox_hazard import CoxHazard
from protocol.stats.cox_residuals import CoxResiduals
from server.centre import Centre
from server.findings import Findings
from server.regression_results import ChiSquareTest, RegressionResults, RegressionRow
from strategies.cox import CoxFit, fit
from strategies.cox_inference import (
    ChiSquare,
    Coefficient,
    coefficients,
    likelihood_ratio_test,
    proportional_hazards_test,
    score_test,
    wald_test,
)
from strategies.cox_penalty import Penalty

__all__ = ["fit_regression"]

QUESTION = "query.cox"
FloatArray = npt.NDArray[np.float64]


class _HospitalsLeft(Exception):
    """Fewer hospitals answered than at the question before."""


class _Asking:
    """Newton's questions to a fixed set of hospitals."""

    def __init__(self, centre: Centre, findings: Findings, sites: Sequence[str]) -> None:
        self.centre = centre
        self.agreed = findings.agreed
        self.section = centre.study.regression
        self.indicators = _indicators(centre, findings)
        self.sites = tuple(sites)
        self.beta: list[float] = []
        self.grid: CoxGridSums | None = None
        self.rounds = 0

    @property
    def num_columns(self) -> int:
        return len(self.section.names) + len(self.indicators)

    def question(self, want: str, beta: FloatArray, hazard: CoxHazard | None) -> dict[str, Any]:
        """Return what ``agreed["cox"]`` says."""
        return {
            "want": want,
            "beta": [float(value) for value in beta],
            "grid_months": list(self.section.grid_months) if self.section.form == "grid" else [],
            "indicators": list(self.indicators),
            "hazard": None if hazard is None else hazard.to_dict(),
        }

    def documents(
        self, want: str, beta: FloatArray, hazard: CoxHazard | None = None
    ) -> list[dict[str, Any]]:
        """Return the hospitals' documents in the study's order.

        Raises
        ------
        _HospitalsLeft
            If not all of them answered (the first question may lose hospitals).
        """
        agreed = {**self.agreed, "cox": self.question(want, beta, hazard)}
        answers = self.centre.answers(QUESTION, self.sites, agreed)
        present = tuple(site for site in self.sites if site in answers)
        if present != self.sites:
            self.sites, first = present, self.rounds == 0
            if not first:
                raise _HospitalsLeft
        return [answers[site] for site in present]

    def sums(self, beta: FloatArray) -> CoxSums:
        """Ask for the sums at ``beta`` and return the likelihood they add up to."""
        documents = self.documents("sums", beta)
        self.rounds += 1
        self.beta = [float(value) for value in beta]
        if self.section.form == "grid":
            parts = [CoxGridSums.from_dict(document["sums"]) for document in documents]
            self.grid = merge_all(parts)
            return self.grid.partial_likelihood(self.section.ties)
        return merge_all([CoxSums.from_dict(document["sums"]) for document in documents])


def _indicators(centre: Centre, findings: Findings) -> tuple[str, ...]:
    """Return the covariates that are missing somewhere and so get an indicator."""
    section = centre.study.regression
    if section.missing != "indicator":
        return ()
    parts = [
        Moments.from_dict(findings.survey[site]["covariates"])
        for site in centre.study.hospitals.train
        if site in findings.survey
    ]
    total = merge_all(parts)
    missing = dict(zip(total.names, total.missing.tolist(), strict=True))
    # A measurement fails in few patients; those are set to the mean without a flag.
    return tuple(name for name in section.covariates if missing[name] > 0)


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
    section = centre.study.regression
    asking = _Asking(centre, findings, centre.study.hospitals.train)
    start: FloatArray | None = None
    while True:
        try:
            found = fit(
                asking.sums,
                asking.num_columns,
                penalty=Penalty(section.penalty, section.l1_ratio),
                start=start,
                tolerance=section.tolerance,
                max_rounds=section.max_rounds,
            )
            # The last question of a halved step may have stood elsewhere than the fit.
            hazard = _hazard(asking, found)
            residuals = _residuals(asking, found, hazard)
            break
        except _HospitalsLeft:
            start = np.array(asking.beta, np.float64)
    results = _results(asking, found, residuals, hazard, findings.agreed["scales"])
    return results, asking.question("sums", found.beta, None)


def _hazard(asking: _Asking, found: CoxFit) -> CoxHazard | None:
    if asking.section.form != "grid":
        return None
    if asking.grid is None or not np.array_equal(asking.grid.beta, found.beta):
        asking.sums(found.beta)
    if asking.grid is None:
        raise TrainingError("The pooled Cox regression has no risk sets; ask the hospitals again.")
    return asking.grid.hazard(asking.section.ties)


def _residuals(asking: _Asking, found: CoxFit, hazard: CoxHazard | None) -> CoxResiduals | None:
    if found.penalty.strength > 0:
        return None
    documents = asking.documents("residuals", found.beta, hazard)
    return merge_all([CoxResiduals.from_dict(document["residuals"]) for document in documents])


def _results(
    asking: _Asking,
    found: CoxFit,
    residuals: CoxResiduals | None,
    hazard: CoxHazard | None,
    scales: dict[str, list[float]],
) -> RegressionResults:
    section = asking.section
    # An indicator is no measurement of the dictionary and is not standardised.
    sd = [scales[name][1] if name in scales else 1.0 for name in found.at.names]
    return RegressionResults(
        form=section.form,
        ties=section.ties,
        penalty=section.penalty,
        l1_ratio=section.l1_ratio,
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
