"""Life tables: Kaplan-Meier, Greenwood and log-rank against lifelines; what suppression hides."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test

from protocol.errors import PayloadError
from protocol.stats import LifeTable, monthly_grid

GRID = monthly_grid(60.0)
NAMES = ("low", "middle", "high")


def cohort(num_patients: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 3, num_patients)
    onset = rng.exponential(120 / (1 + 2 * groups))
    end = rng.uniform(6, 96, num_patients)
    return np.minimum(onset, end), onset <= end, groups


def table(num_patients: int, seed: int = 0) -> LifeTable:
    return LifeTable.of(*cohort(num_patients, seed), grid_months=GRID, names=NAMES)


@pytest.mark.parametrize("seed", range(3))
def test_curve_equals_lifelines_on_rounded_times(seed: int) -> None:
    months, event, groups = cohort(200, seed)
    sums = LifeTable.of(months, event, groups, grid_months=GRID, names=NAMES)
    for group in range(3):
        mine = sums.curve(group)
        chosen = groups == group
        fitter = KaplanMeierFitter().fit(np.ceil(months[chosen]), event[chosen])
        survival = fitter.survival_function_at_times(np.arange(61)).to_numpy()
        np.testing.assert_allclose(mine.survival, survival, atol=1e-12)
        limits = fitter.confidence_interval_.reindex(np.arange(61.0), method="ffill").to_numpy()
        np.testing.assert_allclose(mine.lower[1:], limits[1:, 0], atol=1e-9)
        np.testing.assert_allclose(mine.upper[1:], limits[1:, 1], atol=1e-9)
        rounded = np.ceil(months[chosen])
        assert mine.at_risk.tolist() == [(rounded > month).sum() for month in range(61)]


@pytest.mark.parametrize("seed", range(3))
def test_log_rank_equals_lifelines(seed: int) -> None:
    months, event, groups = cohort(150, seed)
    rounded = np.minimum(np.ceil(months), 61)
    event = event & (rounded < 61)
    expected = multivariate_logrank_test(rounded, groups, event).test_statistic
    chi2, freedom = LifeTable.of(rounded, event, groups, grid_months=GRID, names=NAMES).log_rank()
    assert (chi2, freedom) == (pytest.approx(expected, rel=1e-9), 2)


def test_by_hand() -> None:
    # 4 patients: event in month 1, censored in month 1, event in month 2, still there after month
    # 3.
    sums = LifeTable.of(
        [0.5, 1.0, 1.5, 9.0], [1, 0, 1, 1], [0, 0, 0, 0], grid_months=(0, 1, 2, 3), names=("all",)
    )
    assert sums.events.tolist() == [[1, 1, 0]]
    assert sums.censored.tolist() == [[1, 0, 0, 1]]
    assert sums.at_risk.tolist() == [[4, 2, 1, 1]]
    assert sums.curve(0).survival.tolist() == [1, 0.75, 0.375, 0.375]


def test_curve_is_unknown_once_nobody_is_left() -> None:
    sums = LifeTable.of([1, 1.5], [1, 0], [0, 0], grid_months=(0, 1, 2, 3), names=("all",))
    np.testing.assert_array_equal(sums.curve(0).survival, [1, 0.5, 0.5, np.nan])
    dead = LifeTable.of([1, 1], [1, 1], [0, 0], grid_months=(0, 1, 2, 3), names=("all",))
    assert dead.curve(0).survival.tolist() == [1, 0, 0, 0]


def runs(row: np.ndarray) -> list[float]:
    """Totals of the stretches of equal content: the finest counts a reader can tell apart."""
    edges = np.flatnonzero(np.diff(row)) + 1
    totals = [float(part.sum()) for part in np.split(row, edges)]
    if len(row) == len(GRID) and len(totals) > 1 and totals[-1] == pytest.approx(totals[-2]):
        totals[-2:] = [totals[-2] + totals[-1]]  # halves of what was joined with the grid's end
    return totals


@pytest.mark.parametrize("num_patients", [1, 4, 5, 6, 20, 40, 100, 500])
@pytest.mark.parametrize("seed", range(4))
def test_no_small_count_can_be_read(num_patients: int, seed: int) -> None:
    exact = table(num_patients, seed)
    sent = exact.suppressed(5)
    for group in range(3):
        for mine, truth in ((sent.events, exact.events), (sent.censored, exact.censored)):
            totals = runs(mine[group])
            assert all(total == 0 or total > 4.999 for total in totals)
            assert sum(totals) == pytest.approx(truth[group].sum()) or sent.withheld[group] == 1
    hidden = sent.withheld > 0
    assert not sent.events[hidden].any()
    assert not sent.censored[hidden].any()


def test_one_hidden_group_hides_another() -> None:
    months = np.concatenate([np.full(20, 10.0), np.full(30, 20.0), np.full(40, 30.0)])
    event = np.concatenate([np.arange(20) < 3, np.arange(30) < 10, np.arange(40) < 20])
    groups = np.repeat([0, 1, 2], [20, 30, 40])
    exact = LifeTable.of(months, event, groups, grid_months=GRID, names=NAMES)
    assert exact.suppressed(5).withheld.tolist() == [1, 1, 0]
    assert exact.suppressed(5, complementary=False).withheld.tolist() == [1, 0, 0]


def test_event_months_cannot_be_recovered() -> None:
    # The step of a raw curve is a patient. After suppression a span holds no event or at least
    # five.
    exact = table(60, 2)
    sent = exact.suppressed(5)
    lone = [(g, k) for g, k in np.argwhere(exact.events == 1) if not sent.withheld[g]]
    assert lone
    assert not any(sent.events[g, k] == 1 for g, k in lone)
    assert sent.coarse_months >= 7


def test_suppression_says_how_coarse_and_keeps_the_curve_close() -> None:
    exact = table(600, 1)
    sent = exact.suppressed(5)
    assert not sent.withheld.any()
    assert 1 < sent.coarse_months <= 30
    for group in range(3):
        gap = np.abs(sent.curve(group).survival - exact.curve(group).survival)
        assert gap.max() < 0.04
    assert sent.log_rank()[0] == pytest.approx(exact.log_rank()[0], rel=0.1)


@pytest.mark.parametrize(
    ("months", "event", "groups", "sentence"),
    [
        ([1.0], [1, 0], [0], "differ in length"),
        ([-1.0], [1], [0], "negative or not finite"),
        ([np.nan], [1], [0], "negative or not finite"),
        ([1.0], [1], [3], "group does not exist"),
    ],
)
def test_bad_input_is_named(months: list, event: list, groups: list, sentence: str) -> None:
    with pytest.raises(PayloadError, match=sentence):
        LifeTable.of(months, event, groups, grid_months=GRID, names=NAMES)


def test_grid_must_rise_from_zero() -> None:
    with pytest.raises(PayloadError, match="rise from 0"):
        LifeTable.empty((0.0, 2.0, 2.0), ("all",))
    with pytest.raises(PayloadError, match="1200 months"):
        monthly_grid(0.0)
    assert monthly_grid(2.5) == (0.0, 1.0, 2.0, 2.5)
