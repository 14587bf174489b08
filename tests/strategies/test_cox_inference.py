"""Standard errors, tests, proportional hazards and survival curves against lifelines and sksurv."""

import math

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import proportional_hazard_test
from scipy.stats import chi2, norm
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from client.cox import SurvivalTable, grid_sums, stratified_sums
from client.cox_residuals import baseline_hazard, grid_residuals, stratified_residuals
from protocol.errors import ConfigError, TrainingError
from protocol.stats import CoxGridSums, CoxResiduals, CoxSums, merge_all
from strategies.cox import CoxFit, fit, withdraw
from strategies.cox_inference import (
    coefficients,
    covariance,
    likelihood_ratio_test,
    proportional_hazards_test,
    score_test,
    wald_test,
)
from strategies.cox_penalty import Penalty

NAMES = ("a", "b")


def patients(seed: int, size: int = 200, *, ties: bool) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 2))
    onset = rng.exponential(30 * np.exp(-x @ [0.6, -0.4]))
    end = rng.uniform(6, 60, size)
    months = np.minimum(onset, end)
    table = pd.DataFrame(x, columns=list(NAMES))
    table["months"] = np.ceil(months / 2) * 2 if ties else months + 0.1
    table["event"] = (onset <= end).astype(int)
    table["site"] = rng.integers(0, 3, size)
    table["weight"] = rng.integers(1, 4, size)
    return table


def tables(rows: pd.DataFrame, *, weighted: bool = False) -> list[SurvivalTable]:
    return [
        SurvivalTable.of(
            NAMES,
            part["months"],
            part["event"],
            part[list(NAMES)],
            weight=part["weight"] if weighted else None,
        )
        for _, part in rows.groupby("site")
    ]


def fitted(
    rows: pd.DataFrame, *, ties: str = "efron", weighted: bool = False
) -> tuple[CoxFit, CoxGridSums, list[SurvivalTable]]:
    parts = tables(rows, weighted=weighted)
    grid = np.unique(rows["months"][rows["event"] == 1])

    def sums(beta: np.ndarray) -> CoxGridSums:
        return merge_all([grid_sums(t, beta, grid, min_cell=1) for t in parts])

    found = fit(lambda beta: sums(beta).partial_likelihood(ties), 2)
    return found, sums(found.beta), parts


def residuals(
    found: tuple[CoxFit, CoxGridSums, list[SurvivalTable]],
    transform: str = "log",
    curve: tuple | None = None,
) -> CoxResiduals:
    _, sums, parts = found
    hazard = sums.hazard("efron")
    return merge_all(
        [grid_residuals(t, hazard, transform=transform, curve=curve, min_cell=1) for t in parts]
    )


def lifelines(rows: pd.DataFrame, **options: object) -> CoxPHFitter:
    kept = [*NAMES, "months", "event", *(c for c in ("weight", "site") if c in str(options))]
    return CoxPHFitter().fit(
        rows[kept], "months", "event", fit_options={"precision": 1e-12}, **options
    )


def test_the_table_of_coefficients() -> None:
    rows = patients(1, ties=True)
    reference = lifelines(rows).summary
    found = coefficients(fitted(rows)[0])
    for row, (name, expected) in zip(found, reference.iterrows(), strict=True):
        assert row.name == name
        assert row.hazard_ratio == pytest.approx(expected["exp(coef)"], rel=1e-6)
        assert row.se == pytest.approx(expected["se(coef)"], rel=1e-6)
        assert row.lower == pytest.approx(expected["coef lower 95%"], abs=1e-6)
        assert row.upper == pytest.approx(expected["coef upper 95%"], abs=1e-6)
        assert row.z == pytest.approx(expected["z"], rel=1e-5)
        assert row.p == pytest.approx(expected["p"], rel=1e-4)
    narrow = coefficients(fitted(rows)[0], level=0.5)[0]
    assert narrow.upper - narrow.beta == pytest.approx(narrow.se * norm.ppf(0.75))


def test_robust_errors_pooled() -> None:
    rows = patients(2, ties=False)
    found = fitted(rows)
    errors = [row.se for row in coefficients(found[0], residuals=residuals(found))]
    reference = lifelines(rows, robust=True)
    np.testing.assert_allclose(errors, reference.standard_errors_, rtol=1e-6)


def test_robust_errors_with_weights() -> None:
    rows = patients(3, ties=False)
    found = fitted(rows, weighted=True)
    reference = lifelines(rows, robust=True, weights_col="weight")
    np.testing.assert_allclose(found[0].beta, reference.params_, atol=1e-6)
    errors = [row.se for row in coefficients(found[0], residuals=residuals(found))]
    np.testing.assert_allclose(errors, reference.standard_errors_, rtol=1e-6)


def test_robust_errors_stratified() -> None:
    rows = patients(4, ties=False)
    parts = tables(rows)
    found = fit(lambda b: merge_all([stratified_sums(t, b, min_cell=1) for t in parts]), 2)
    sums = merge_all([stratified_residuals(t, found.beta, min_cell=1) for t in parts])
    reference = lifelines(rows, robust=True, strata=["site"])
    errors = [row.se for row in coefficients(found, residuals=sums)]
    np.testing.assert_allclose(errors, reference.standard_errors_, rtol=1e-6)


def test_the_three_tests_of_all_coefficients() -> None:
    rows = patients(5, ties=True)
    found, reference = fitted(rows)[0], lifelines(rows)
    ratio = likelihood_ratio_test(found)
    expected = reference.log_likelihood_ratio_test()
    assert ratio.statistic == pytest.approx(expected.test_statistic, rel=1e-8)
    assert ratio.p == pytest.approx(expected.p_value, rel=1e-6)
    v = reference.variance_matrix_.to_numpy()
    beta = reference.params_.to_numpy()
    assert wald_test(found).statistic == pytest.approx(beta @ np.linalg.inv(v) @ beta, rel=1e-6)
    # Asymptotically one: all three lie close together, and each p is its own chi-square's.
    score = score_test(found)
    assert score.statistic == pytest.approx(ratio.statistic, rel=0.2)
    assert score.p == pytest.approx(chi2.sf(score.statistic, 2))


def test_the_score_test_of_one_group_is_the_log_rank_test() -> None:
    from lifelines.statistics import logrank_test

    rows = patients(6, ties=False)
    treated = (rows["a"] > 0).astype(float)
    table = SurvivalTable.of(("treated",), rows["months"], rows["event"], treated.to_frame())
    found = fit(lambda b: stratified_sums(table, b, min_cell=1), 1)
    one, other = rows[treated == 1], rows[treated == 0]
    expected = logrank_test(one["months"], other["months"], one["event"], other["event"])
    assert score_test(found).statistic == pytest.approx(expected.test_statistic, rel=1e-9)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("transform", ["identity", "log", "km"])
def test_proportional_hazards(ties: bool, transform: str) -> None:
    rows = patients(7, ties=ties)
    found = fitted(rows)
    curve = None
    if transform == "km":
        # lifelines takes 1 - S just after each time.
        km = KaplanMeierFitter().fit(rows["months"], rows["event"]).survival_function_
        curve = (km.index.to_list(), km["KM_estimate"].to_list())
    single, together = proportional_hazards_test(found[0], residuals(found, transform, curve))
    kept = rows[[*NAMES, "months", "event"]]
    expected = proportional_hazard_test(lifelines(rows), kept, time_transform=transform)
    np.testing.assert_allclose(
        [test.statistic for test in single], expected.test_statistic, rtol=1e-5
    )
    assert together.degrees == 2
    assert together.statistic >= max(test.statistic for test in single) - 1e-9


def test_a_hazard_ratio_that_drifts_is_seen() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(600, 2))
    # Hazard ratio e^(+1) before month 12, e^(-1) after it.
    early = rng.exponential(20 * np.exp(-x[:, 0]))
    late = 12 + rng.exponential(20 * np.exp(x[:, 0]))
    rows = pd.DataFrame(x, columns=list(NAMES))
    rows["months"], rows["event"] = np.where(early < 12, early, late) + 0.01, 1
    rows["site"] = rng.integers(0, 3, 600)
    found = fitted(rows)
    single, together = proportional_hazards_test(found[0], residuals(found, "identity"))
    assert single[0].p < 1e-6 < 1e-3 < single[1].p
    assert together.p < 1e-6


@pytest.mark.parametrize("ties", [False, True])
def test_survival_curves(ties: bool) -> None:
    rows = patients(9, ties=ties)
    found, sums, _ = fitted(rows, ties="breslow")
    hazard = sums.hazard("breslow")
    y = Surv.from_arrays(rows["event"] == 1, rows["months"])
    x = rows[list(NAMES)].to_numpy()
    reference = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-14).fit(x, y)
    months = np.array([0.5, 5.0, 20.0, 55.0])
    expected = [
        [step(t) if t >= step.x[0] else 1.0 for t in months]
        for step in reference.predict_survival_function(x[:5])
    ]
    np.testing.assert_allclose(hazard.survival(x[:5], months), expected, rtol=1e-7)
    assert found.at.ties == ("breslow",)


def test_survival_curves_of_one_hospital() -> None:
    rows = patients(10, ties=True)
    parts = tables(rows)
    found = fit(lambda b: merge_all([stratified_sums(t, b, min_cell=1) for t in parts]), 2)
    own = baseline_hazard(parts[1], found.beta, ties="breslow", min_cell=1)
    reference = lifelines(rows, strata=["site"])
    expected = reference.baseline_cumulative_hazard_.iloc[:, 1]
    # lifelines centres the covariates, and its baseline is that of the mean patient.
    centred = math.exp(float(rows[list(NAMES)].mean().to_numpy() @ found.beta))
    times = expected.dropna().index.to_numpy()
    np.testing.assert_allclose(own.cumulative(times) * centred, expected.dropna(), rtol=1e-5)
    shared = baseline_hazard(parts[1], found.beta, np.arange(6.0, 61.0, 6), min_cell=5)
    assert shared.cumulative([60.0])[0] == pytest.approx(own.cumulative([60.0])[0], rel=0.3)


def test_what_is_not_known_is_not_made_up() -> None:
    rows = patients(11, ties=True)
    found, sums, parts = fitted(rows)

    def ask(beta: np.ndarray) -> CoxSums:
        return merge_all([stratified_sums(part, beta, min_cell=1) for part in parts])

    left = withdraw(found, ask)
    with pytest.raises(TrainingError, match="sums at beta = 0 are not known"):
        likelihood_ratio_test(left)
    again = fit(ask, 2, start=found.beta, null=ask(np.zeros(2)))
    assert likelihood_ratio_test(again).statistic > 0
    with pytest.raises(TrainingError, match="of other coefficients than the fit"):
        covariance(left, residuals((found, sums, parts)))
    for test, name in ((likelihood_ratio_test, "likelihood-ratio"), (wald_test, "Wald")):
        with pytest.raises(TrainingError, match=f"The {name} test of a penalised fit"):
            test(fit(ask, 2, penalty=Penalty(0.1)))
    with pytest.raises(TrainingError, match="Standard errors do not exist for a lasso"):
        coefficients(fit(ask, 2, penalty=Penalty(0.01, 1.0)))
    with pytest.raises(ConfigError, match="confidence level of 95"):
        coefficients(found, level=95)


def test_events_at_one_time_tell_nothing_of_a_drift() -> None:
    rows = patients(12, ties=True).assign(months=6.0)
    found = fitted(rows)
    with pytest.raises(TrainingError, match="All events fell at one time"):
        proportional_hazards_test(found[0], residuals(found, "identity"))
