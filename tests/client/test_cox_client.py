"""The hospital's half of a Cox regression against a plain double loop, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cox import SurvivalTable, assign_folds, grid_sums, stratified_sums
from client.cox_residuals import baseline_hazard, grid_residuals, stratified_residuals
from client.cox_risk_sets import coarse_blocks, place
from protocol.errors import DataError
from protocol.stats import merge_all

NAMES = ("a", "b")
BETA = np.array([0.7, -0.4])


def random_table(seed: int, size: int = 30, kind: str = "plain") -> SurvivalTable:
    """Patients with many ties; kinds: no events, all events, weights, late entry, strata."""
    rng = np.random.default_rng(seed)
    months = rng.integers(1, 9, size) + rng.choice([0.0, 0.5], size)
    share = {"none": 0.0, "all": 1.0}.get(kind, 0.5)
    late = np.maximum(months - rng.integers(1, 6, size), 0.0)
    return SurvivalTable.of(
        NAMES,
        months,
        rng.random(size) < share,
        rng.normal(size=(size, 2)),
        start_months=late if kind in {"late", "everything"} else None,
        weight=rng.uniform(0.2, 3, size) if kind in {"weights", "everything"} else None,
        stratum=rng.integers(0, 2, size) if kind == "everything" else None,
    )


def by_loops(
    table: SurvivalTable, beta: np.ndarray, ties: str
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood, gradient and information, event by event as in the textbook."""
    likelihood, gradient, information = 0.0, np.zeros(2), np.zeros((2, 2))
    r = table.weight * np.exp(table.x @ beta)
    for stratum in set(table.stratum.tolist()):
        mine = table.stratum == stratum
        for t in sorted(set(table.months[mine & table.event].tolist())):
            at_risk = mine & (table.start_months < t) & (table.months >= t)
            dead = mine & table.event & (table.months == t)
            d = int(dead.sum())
            w = table.weight[dead].mean()
            for order in range(d):
                share = order / d if ties == "efron" else 0.0
                factor = r * (at_risk - share * dead)
                s0 = factor.sum()
                mean = factor @ table.x / s0
                centred = table.x - mean
                likelihood -= w * math.log(s0)
                gradient -= w * mean
                information += w * (centred * factor[:, None]).T @ centred / s0
            likelihood += float(table.weight[dead] @ (table.x[dead] @ beta))
            gradient += table.weight[dead] @ table.x[dead]
    return likelihood, gradient, information


KINDS = ("plain", "none", "all", "weights", "late", "everything")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 40),
    kind=st.sampled_from(KINDS),
    ties=st.sampled_from(["efron", "breslow"]),
)
def test_equals_the_double_loop(seed: int, size: int, kind: str, ties: str) -> None:
    table = random_table(seed, size, kind)
    expected = by_loops(table, BETA, ties)
    sums = stratified_sums(table, BETA, ties=ties, min_cell=1)
    found = [sums]
    if kind != "everything":  # the grid form knows no strata inside a hospital
        grid = np.arange(0.5, 10, 0.5)
        found.append(grid_sums(table, BETA, grid, min_cell=1).partial_likelihood(ties))
        if table.num_events:
            exact = np.unique(table.months[table.event])
            found.append(grid_sums(table, BETA, exact, min_cell=1).partial_likelihood(ties))
    for one in found:
        assert one.log_likelihood == pytest.approx(expected[0], rel=1e-9, abs=1e-9)
        np.testing.assert_allclose(one.gradient, expected[1], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.information, expected[2], rtol=1e-9, atol=1e-9)
        assert (one.num_patients, one.num_events) == (size, table.num_events)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    cut=st.integers(0, 40),
    kind=st.sampled_from(KINDS[:5]),
)
def test_splitting_a_hospital_changes_nothing_in_the_pooled_form(
    seed: int, cut: int, kind: str
) -> None:
    table = random_table(seed, 40, kind)
    grid = np.arange(0.5, 10, 0.5)
    whole = grid_sums(table, BETA, grid, min_cell=1)
    parts = [
        grid_sums(table.take(slice(a, b)), BETA, grid, min_cell=1) for a, b in ((0, cut), (cut, 40))
    ]
    merged = merge_all(parts)
    for name in ("deaths", "event_x", "risk0", "risk1", "risk2", "tied0", "tied1", "tied2"):
        np.testing.assert_allclose(
            getattr(merged, name), getattr(whole, name), rtol=1e-9, atol=1e-9
        )


def test_a_shift_of_the_covariates_changes_nothing() -> None:
    table = random_table(4, 40)
    far = SurvivalTable.of(NAMES, table.months, table.event, table.x + 1e3)
    near, moved = (stratified_sums(t, 0.01 * BETA, min_cell=1) for t in (table, far))
    assert moved.log_likelihood == pytest.approx(near.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(moved.information, near.information, rtol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "all", "weights", "late"])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_score_residuals_are_the_derivatives_by_weight(kind: str, ties: str) -> None:
    """Infinitesimal jackknife: the gradient's derivative with respect to a patient's weight."""
    table = random_table(8, 14, kind)

    def gradient(weight: np.ndarray) -> np.ndarray:
        other = SurvivalTable.of(
            NAMES,
            table.months,
            table.event,
            table.x,
            start_months=table.start_months,
            weight=weight,
        )
        return stratified_sums(other, BETA, ties=ties, min_cell=1).gradient

    step, outer = 1e-5, np.zeros((2, 2))
    for i in range(len(table)):
        moved = np.zeros(len(table))
        moved[i] = step
        slope = (gradient(table.weight + moved) - gradient(table.weight - moved)) / (2 * step)
        outer += np.outer(slope, slope) * table.weight[i] ** 2
    found = stratified_residuals(table, BETA, ties=ties, min_cell=1)
    np.testing.assert_allclose(found.outer, outer, rtol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "weights", "late"])
def test_residuals_add_up(kind: str) -> None:
    table = random_table(9, 40, kind)
    stratified = stratified_residuals(table, BETA, transform="identity", min_cell=1)
    # Schoenfeld residuals sum to the gradient (exactly so without weights among tied events), and
    # martingale residuals to 0.
    assert stratified.martingale == pytest.approx(0, abs=1e-12)
    if kind != "weights":
        gradient = stratified_sums(table, BETA, min_cell=1).gradient
        np.testing.assert_allclose(stratified.schoenfeld, gradient, atol=1e-12)
        assert stratified.time_sum == pytest.approx(float(table.months[table.event].sum()))
    grid = np.arange(0.5, 10, 0.5)
    hazard = grid_sums(table, BETA, grid, min_cell=1).hazard("efron")
    pooled = grid_residuals(table, hazard, transform="identity", min_cell=1)
    np.testing.assert_allclose(pooled.outer, stratified.outer, rtol=1e-10)
    np.testing.assert_allclose(pooled.schoenfeld_time, stratified.schoenfeld_time, atol=1e-10)
    own = baseline_hazard(table, BETA, min_cell=1)
    np.testing.assert_allclose(own.cumulative([3.2, 99.0]), hazard.cumulative([3.2, 99.0]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(12, 200),
    min_cell=st.integers(2, 8),
    late=st.booleans(),
)
def test_no_change_along_the_grid_rests_on_few(
    seed: int, size: int, min_cell: int, late: bool
) -> None:
    table = random_table(seed, size, "late" if late else "plain")
    grid = np.arange(0.5, 10, 0.5)
    try:
        sets = place(table, grid, min_cell)
    except DataError as refusal:
        assert "over the whole grid" in refusal.sentence
        return
    seen = sets.first <= sets.last
    happened = sets.event >= 0
    for points in (
        sets.event[happened],
        sets.last[seen & ~happened],
        sets.first[seen & (sets.first > 0)],
        sets.first[seen & (sets.first == 0)],
    ):
        counts = np.bincount(points)
        assert not ((counts > 0) & (counts < min_cell)).any()
    exact = place(table, grid)
    # Nobody disappears, and nobody's time at risk gets shorter.
    assert (happened == (exact.event >= 0)).all()
    assert (seen == (exact.first <= exact.last)).all()
    assert (sets.first <= exact.first)[seen].all()
    assert (sets.last >= exact.last)[seen].all()


def test_coarse_sums_say_over_how_long() -> None:
    table = random_table(3, 60)
    with pytest.raises(DataError, match="minimum of 5 patients needs times moved together over"):
        grid_sums(table, BETA, np.arange(1.0, 10), min_cell=5)
    coarse = grid_sums(table, BETA, np.arange(1.0, 10), min_cell=5, max_coarse_months=9.0)
    assert 0 < coarse.coarse_months <= 9
    assert coarse.deaths.sum() == table.num_events
    assert grid_sums(table, BETA, np.arange(1.0, 10), min_cell=1).coarse_months == 0


def test_blocks_by_hand() -> None:
    counts = np.array([[3, 0, 1, 2, 0, 0, 4, 0]])
    # 6 | 4; then 3 | 3 and 0 | 4; then (3 | 0), (1 | 2) would be small, (4 | 0).
    assert coarse_blocks(counts, 3).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert coarse_blocks(counts, 5).tolist() == [0, 8]


@pytest.mark.parametrize(
    ("size", "kind", "what"),
    [(4, "all", "patients"), (30, "none", "events"), (1, "all", "patients")],
)
def test_a_small_hospital_is_told_before_anything_is_sent(size: int, kind: str, what: str) -> None:
    table = random_table(1, size, kind)
    for ask in (stratified_sums, stratified_residuals):
        with pytest.raises(DataError, match=f"fewer {what} than its minimum of 5, so it sends no"):
            ask(table, BETA, min_cell=5)


def test_no_event_is_no_obstacle_to_risk_sets_but_two_are() -> None:
    grid = np.arange(1.0, 10)
    none = grid_sums(random_table(1, 30, "none"), BETA, grid, min_cell=5, max_coarse_months=9.0)
    assert none.num_sites == 0
    table = random_table(1, 30, "none")
    event = table.event.copy()
    event[:2] = True
    few = SurvivalTable.of(NAMES, table.months, event, table.x)
    with pytest.raises(DataError, match="fewer events than its minimum of 5"):
        grid_sums(few, BETA, grid, min_cell=5)


@pytest.mark.parametrize(
    ("beta", "sentence"),
    [
        ([0.0], r"Coefficients of shape \(1,\) were asked for; expected 2"),
        ([0.0, math.nan], "expected 2 finite numbers"),
        ([60.0, 0.0], "spread the linear predictor beyond 100"),
    ],
)
def test_coefficients_that_cannot_be_answered(beta: list[float], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        stratified_sums(random_table(1, 200), beta, min_cell=1)


def test_large_predictors_stay_finite() -> None:
    table = random_table(2, 200)
    sums = stratified_sums(table, [10.0, 8.0], min_cell=1)
    grid = grid_sums(table, [10.0, 8.0], np.arange(0.5, 10, 0.5), min_cell=1)
    assert sums.log_likelihood == pytest.approx(
        grid.partial_likelihood("efron").log_likelihood, rel=1e-9
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"months": [0.0, 1.0]}, "not above 0 or not after its start"),
        ({"months": [1.0, math.inf]}, "A follow-up time is not finite"),
        ({"start_months": [1.0, 0.0]}, "not after its start"),
        ({"event": [2, 0]}, "An event is neither 0 nor 1"),
        ({"x": [[math.nan], [1.0]]}, "A covariate is missing or not finite"),
        ({"x": [[1.0, 2.0], [1.0, 2.0]]}, r"form a table of \(2, 2\) for 2 patients and 1 names"),
        ({"weight": [0.0, 1.0]}, "A case weight is not above 0"),
        ({"names": []}, "A regression on 0 covariates"),
    ],
)
def test_a_table_that_cannot_be_used(change: dict, sentence: str) -> None:
    good = {"names": ["a"], "months": [1.0, 2.0], "event": [1, 0], "x": [[1.0], [2.0]]}
    with pytest.raises(DataError, match=sentence):
        SurvivalTable.of(**{**good, **change})


def test_folds_are_even_or_the_whole_hospital() -> None:
    table = random_table(5, 60)
    folds = assign_folds(table, 3, np.random.default_rng(1), min_cell=5)
    events = np.bincount(folds[table.event], minlength=3)
    assert events.min() >= 5
    assert np.ptp(events) <= 1
    small = assign_folds(table.take(slice(0, 12)), 3, np.random.default_rng(1), min_cell=5)
    assert len(set(small.tolist())) == 1
    with pytest.raises(DataError, match="in 1 folds"):
        assign_folds(table, 1, np.random.default_rng(1), min_cell=5)


def test_a_function_of_time_that_is_not_there() -> None:
    table = random_table(5, 60)
    with pytest.raises(DataError, match="no function of time 'rank'; write one of identity, km"):
        stratified_residuals(table, BETA, transform="rank", min_cell=1)
    with pytest.raises(DataError, match="needs the pooled survival curve"):
        stratified_residuals(table, BETA, transform="km", min_cell=1)


def test_no_number_of_one_patient_is_in_what_is_sent() -> None:
    """Every number of the answers against every patient's time, covariates, score and hazard."""
    table = random_table(6, 300)
    rng = np.random.default_rng(6)
    months = np.round(rng.exponential(20, 300) + 0.5, 6)
    table = SurvivalTable.of(NAMES, months, table.event, table.x)
    risk = np.exp(table.x @ BETA)
    own = [table.months, table.x.ravel(), np.log(risk), risk, (risk[:, None] * table.x).ravel()]
    private = np.sort(np.abs(np.concatenate(own)))
    grid = np.arange(1.0, 61.0)
    sent = grid_sums(table, BETA, grid, min_cell=5, max_coarse_months=60.0)
    hazard = baseline_hazard(table, BETA, grid, min_cell=5)
    answers = [
        *(a for a in vars(sent).values() if isinstance(a, np.ndarray) and a is not sent.beta),
        *(np.diff(a, axis=0) for a in (sent.risk0, sent.risk1)),
        stratified_sums(table, BETA, min_cell=5).information,
        stratified_sums(table, BETA, min_cell=5).gradient,
        stratified_residuals(table, BETA, min_cell=5).outer,
        np.array(stratified_residuals(table, BETA, min_cell=5).time_sum),
        hazard.hazard,
    ]
    numbers = np.abs(np.concatenate([np.ravel(a).astype(float) for a in answers]))
    at = np.minimum(np.searchsorted(private, numbers), len(private) - 1)
    near = np.minimum(np.abs(private[at] - numbers), np.abs(private[at - 1] - numbers))
    told = numbers > 0
    assert (near[told] > 1e-9).all()
    # The test can fail: without the rule a patient who leaves alone stands in the differences.
    open_sums = grid_sums(table, BETA, np.unique(months), min_cell=1)
    steps = np.abs(np.diff(open_sums.risk0))
    at = np.minimum(np.searchsorted(private, steps), len(private) - 1)
    assert (np.minimum(np.abs(private[at] - steps), np.abs(private[at - 1] - steps)) < 1e-9).any()
