"""Exact federated Cox regression: equal to the pooled analysis, or refused with the reason."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from client.cox import SurvivalTable, grid_sums, stratified_sums
from protocol.errors import PayloadError, TrainingError
from protocol.stats import CoxSums, merge_all
from strategies.cox import Ask, CoxFit, fit, withdraw
from strategies.cox_inference import coefficients

NAMES = ("a", "b", "c")
EXACT = {"precision": 1e-12}


def patients(seed: int, size: int = 240, sites: int = 4, late: bool = False) -> pd.DataFrame:
    """Simulated patients with heavy ties (quarter years), one row each."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 3))
    x[:, 2] = rng.random(size) < 0.4
    onset = rng.exponential(40 * np.exp(-x @ [0.6, -0.4, 0.5]))
    end = rng.uniform(6, 60, size)
    months = np.ceil(np.minimum(onset, end) / 3) * 3
    table = pd.DataFrame(x, columns=NAMES)
    table["months"], table["event"] = months, (onset <= end).astype(int)
    table["site"] = rng.integers(0, sites, size)
    table["weight"] = rng.uniform(0.3, 3, size)
    table["start"] = np.where(rng.random(size) < 0.5, months - 3, 0.0) if late else 0.0
    return table


def tables(rows: pd.DataFrame, *, by: str = "site", weighted: bool = False) -> list[SurvivalTable]:
    return [
        SurvivalTable.of(
            NAMES,
            part["months"],
            part["event"],
            part[list(NAMES)],
            start_months=part["start"],
            weight=part["weight"] if weighted else None,
        )
        for _, part in rows.groupby(by)
    ]


def stratified(parts: Sequence[SurvivalTable], ties: str = "efron") -> Ask:
    return lambda beta: merge_all([stratified_sums(t, beta, ties=ties, min_cell=1) for t in parts])


def pooled(parts: Sequence[SurvivalTable], ties: str = "efron", step: float = 3.0) -> Ask:
    grid = np.arange(step, 61.0 + step, step)
    return lambda beta: merge_all(
        [grid_sums(t, beta, grid, min_cell=1) for t in parts]
    ).partial_likelihood(ties)


def assert_is(found: CoxFit, reference: CoxPHFitter) -> None:
    # lifelines stops when its likelihood does; ours goes on until the gradient is 0.
    assert np.abs(found.at.gradient).max() < 1e-8
    np.testing.assert_allclose(found.beta, reference.params_.to_numpy(), rtol=0, atol=1e-6)
    errors = [row.se for row in coefficients(found)]
    np.testing.assert_allclose(errors, reference.standard_errors_.to_numpy(), rtol=1e-6)
    assert found.at.log_likelihood == pytest.approx(reference.log_likelihood_, abs=1e-7)


COLUMNS = [*NAMES, "months", "event"]


@pytest.mark.parametrize("seed", range(4))
def test_stratified_equals_lifelines(seed: int) -> None:
    rows = patients(seed)
    reference = CoxPHFitter().fit(
        rows[[*COLUMNS, "site"]], "months", "event", strata=["site"], fit_options=EXACT
    )
    assert_is(fit(stratified(tables(rows)), 3), reference)


@pytest.mark.parametrize("seed", range(4))
def test_pooled_equals_lifelines(seed: int) -> None:
    rows = patients(seed)
    reference = CoxPHFitter().fit(rows[COLUMNS], "months", "event", fit_options=EXACT)
    assert_is(fit(pooled(tables(rows)), 3), reference)


def test_weights_equal_lifelines() -> None:
    rows = patients(7)
    with pytest.warns(Warning, match="weights are not integers"):
        reference = CoxPHFitter().fit(
            rows[[*COLUMNS, "weight"]], "months", "event", weights_col="weight", fit_options=EXACT
        )
    assert_is(fit(pooled(tables(rows, weighted=True)), 3), reference)


def test_late_entry_equals_lifelines() -> None:
    rows = patients(8, late=True)
    reference = CoxPHFitter().fit(
        rows[[*COLUMNS, "start"]], "months", "event", entry_col="start", fit_options=EXACT
    )
    found = fit(pooled(tables(rows)), 3)
    np.testing.assert_allclose(found.beta, reference.params_.to_numpy(), atol=1e-7)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@pytest.mark.parametrize("seed", range(10))
def test_pooled_equals_scikit_survival(seed: int, ties: str) -> None:
    rows = patients(seed, 120)
    y = Surv.from_arrays(rows["event"] == 1, rows["months"])
    reference = CoxPHSurvivalAnalysis(ties=ties, tol=1e-14, n_iter=100)
    reference.fit(rows[list(NAMES)].to_numpy(), y)
    found = fit(pooled(tables(rows), ties), 3)
    np.testing.assert_allclose(found.beta, reference.coef_, rtol=0, atol=5e-9)


def test_how_patients_are_spread_over_hospitals_does_not_matter_to_the_pooled_fit() -> None:
    rows = patients(11)
    first = fit(pooled(tables(rows)), 3)
    rows["half"] = rows["site"] * 2 + (np.arange(len(rows)) % 2)
    split = fit(pooled(tables(rows, by="half")), 3)
    rows["one"] = 0
    single = fit(pooled(tables(rows, by="one")), 3)
    for other in (split, single):
        np.testing.assert_allclose(other.beta, first.beta, rtol=0, atol=1e-12)


def test_one_hospital_stratified_is_the_pooled_fit() -> None:
    rows = patients(12)
    rows["one"] = 0
    own = fit(stratified(tables(rows, by="one")), 3)
    np.testing.assert_allclose(own.beta, fit(pooled(tables(rows)), 3).beta, rtol=0, atol=1e-12)


def test_a_coarser_grid_is_near_and_says_it_is_not_exact() -> None:
    rows = patients(13, 2000)
    exact, coarse = fit(pooled(tables(rows)), 3), fit(pooled(tables(rows), step=6.0), 3)
    gap = np.abs(coarse.beta - exact.beta)
    assert 0 < gap.max() < 0.03


def test_an_empty_hospital_changes_nothing() -> None:
    parts = tables(patients(14))
    nobody = parts[0].take(np.zeros(len(parts[0]), bool))
    for form in (stratified, pooled):
        with_it, without = fit(form([*parts, nobody]), 3), fit(form(parts), 3)
        assert with_it.beta.tobytes() == without.beta.tobytes()


def test_dialysis(shared_data: Path) -> None:
    rows = pd.read_csv(shared_data / "survival" / "survset" / "Dialysis.csv")
    names = ("age", "begin", "diabetes", "hypert", "other", "renal")
    x = np.column_stack(
        [rows["num_age"], rows["num_begin"], *(rows["fac_disease"] == name for name in names[2:])]
    ).astype(float)
    parts = [
        SurvivalTable.of(names, rows["time"][here], rows["event"][here], x[here])
        for here in (
            (rows["fac_center"] == centre).to_numpy() for centre in rows["fac_center"].unique()
        )
    ]
    assert len(parts) == 67
    months = np.arange(1.0, 45.0)
    asks: list[tuple[Ask, list[float], float]] = [
        (
            lambda beta: merge_all(
                [grid_sums(t, beta, months, min_cell=1) for t in parts]
            ).partial_likelihood("efron"),
            [0.034388, 0.006506, 0.987546, 0.693365, 0.729817, 0.740076],
            -13013.4985,
        ),
        (
            stratified(parts),
            [0.034521, 0.002675, 1.026904, 0.627356, 0.750337, 0.569405],
            -6516.1895,
        ),
    ]
    for ask, beta, likelihood in asks:
        found = fit(ask, 6)
        np.testing.assert_allclose(found.beta, beta, rtol=0, atol=1e-6)
        assert found.at.log_likelihood == pytest.approx(likelihood, abs=1e-4)
        assert found.rounds <= 10


@pytest.mark.parametrize("form", [stratified, pooled])
def test_a_hospital_withdraws(form: Callable[[Sequence[SurvivalTable]], Ask]) -> None:
    parts = tables(patients(21))
    whole = fit(form(parts), 3)
    never = fit(form(parts[1:]), 3)
    left = withdraw(whole, form(parts[1:]))
    np.testing.assert_allclose(left.beta, never.beta, rtol=0, atol=1e-12)
    assert left.rounds <= never.rounds
    assert left.at.num_patients == never.at.num_patients


def test_withdrawal_starts_from_the_sums_that_are_left() -> None:
    parts = tables(patients(22))
    whole = fit(stratified(parts), 3)
    own = stratified_sums(parts[0], whole.beta, min_cell=1)
    others = stratified(parts[1:])
    left = withdraw(whole, others, first=whole.at.without(own))
    np.testing.assert_allclose(left.beta, fit(others, 3).beta, rtol=0, atol=1e-12)
    assert left.rounds < withdraw(whole, others).rounds


def test_the_same_patients_at_two_hospitals_halve_the_variance_and_move_nothing() -> None:
    table = tables(patients(23, sites=1))[0]
    once, twice = fit(stratified([table]), 3), fit(stratified([table, table]), 3)
    np.testing.assert_allclose(twice.beta, once.beta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(twice.at.information, 2 * once.at.information, rtol=1e-12)
    # Breslow's pooled likelihood of doubled patients has the same optimum; Efron's does not.
    pair = [fit(pooled(parts, "breslow"), 3) for parts in ([table], [table, table])]
    np.testing.assert_allclose(pair[1].beta, pair[0].beta, rtol=0, atol=1e-12)


def test_no_event() -> None:
    rows = patients(31).assign(event=0)
    for form in (stratified, pooled):
        with pytest.raises(TrainingError, match="None of 240 patients had an event"):
            fit(form(tables(rows)), 3)


def test_all_events_at_one_hospital() -> None:
    rows = patients(32)
    rows.loc[rows["site"] > 0, "event"] = 0
    ask = stratified(tables(rows))
    with pytest.raises(TrainingError, match=r"1 hospital\(s\) had events where at least 2 must"):
        fit(ask, 3, min_sites=2)
    # Unless it is refused, it is that hospital's own fit, and the pooled one is everybody's.
    own = fit(stratified(tables(rows[rows["site"] == 0])), 3)
    np.testing.assert_allclose(fit(ask, 3).beta, own.beta, rtol=0, atol=1e-12)
    reference = CoxPHFitter().fit(rows[COLUMNS], "months", "event", fit_options=EXACT)
    assert_is(fit(pooled(tables(rows)), 3), reference)


@pytest.mark.parametrize("seed", range(20))
def test_one_event_in_all_is_finite_or_refused(seed: int) -> None:
    rows = patients(seed, 40)
    rows["event"] = 0
    rows.loc[seed, "event"] = 1
    try:
        found = fit(pooled(tables(rows)), 3)
    except TrainingError as refusal:
        assert "leave it out or add a" in refusal.sentence
        return
    assert np.isfinite(found.beta).all()
    assert np.abs(found.at.gradient).max() < 1e-6


def test_a_covariate_that_separates() -> None:
    rows = patients(33)
    rows["c"] = np.where(rows["event"] == 1, 0.0, rows["c"])
    with pytest.raises(TrainingError, match=r"no finite coefficients in .* along 'c' the like"):
        fit(pooled(tables(rows)), 3)


def test_collinear_and_constant_covariates_are_named() -> None:
    rows = patients(34)
    with pytest.raises(TrainingError, match="singular: 'c' does not vary in the patients at risk"):
        fit(stratified(tables(rows.assign(c=3.3))), 3)
    with pytest.raises(TrainingError, match="singular: 'a', 'c' cannot be told apart"):
        fit(pooled(tables(rows.assign(c=2 * rows["a"]))), 3)


def test_it_does_not_stop_halfway() -> None:
    with pytest.raises(TrainingError, match="in 2 rounds"):
        fit(pooled(tables(patients(35))), 3, max_rounds=2)


def test_hospitals_that_change_under_way_are_noticed() -> None:
    parts, asked = tables(patients(36)), []

    def ask(beta: np.ndarray) -> CoxSums:
        asked.append(beta)
        return stratified(parts[: 5 - len(asked)])(beta)

    with pytest.raises(TrainingError, match="ask the same hospitals every time"):
        fit(ask, 3)
    with pytest.raises(TrainingError, match="at other coefficients than asked for"):
        fit(lambda beta: stratified(parts)(beta + 1), 3)
    with pytest.raises(PayloadError, match="different coefficients"):
        merge_all([stratified_sums(t, [i, 0, 0], min_cell=1) for i, t in enumerate(parts)])


def test_covariates_of_any_scale() -> None:
    rows = patients(37)
    plain = fit(pooled(tables(rows)), 3).beta
    scaled = rows.assign(a=rows["a"] * 1e4 + 3e4, b=rows["b"] * 1e-3)
    found = fit(pooled(tables(scaled)), 3).beta
    np.testing.assert_allclose(found * [1e4, 1e-3, 1], plain, rtol=1e-7)
