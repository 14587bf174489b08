"""Brier score from sums over hospitals equals scikit-survival's on the pooled patients."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from sksurv.metrics import brier_score, integrated_brier_score

from protocol.errors import PayloadError
from protocol.stats import merge_all, monthly_grid
from protocol.stats.brier import BrierSums
from protocol.stats.censoring import CensoringCurve


def _load() -> ModuleType:
    place = Path(__file__).with_name("survival_examples.py")
    spec = importlib.util.spec_from_file_location("survival_examples", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ex = _load()
GRID = monthly_grid(60.0)
HORIZONS = (6.0, 12.0, 24.0, 36.0)


def brier(patients, g: CensoringCurve, horizons=HORIZONS, **options) -> BrierSums:
    return BrierSums.of(
        patients.months,
        patients.event,
        patients.survival(np.asarray(horizons)),
        horizons_months=horizons,
        censoring=g,
        **options,
    )


def test_equals_scikit_survival_on_200_pooled_cohorts() -> None:
    for seed in range(200):
        _against_scikit_survival(seed)


def _against_scikit_survival(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = ("mixed", "mixed", "mixed", "all events")[seed % 4]
    whole = ex.cohort(int(rng.integers(40, 90)), rng, whole_months=bool(seed % 2), kind=kind)
    parts = ex.hospitals(whole, 4, rng)
    horizons = tuple(h for h in HORIZONS if whole.months.min() <= h < whole.months.max())
    grid = ex.exact_grid(np.append(whole.months, horizons))
    life = merge_all([ex.life_table(part, grid) for part in parts])
    g, outcome = CensoringCurve.from_table(life), ex.structured(whole)
    total = merge_all([brier(part, g, horizons) for part in parts])
    predicted = whole.survival(np.asarray(horizons))
    _, expected = brier_score(outcome, outcome, predicted, horizons)
    np.testing.assert_allclose(total.scores, expected, rtol=0, atol=1e-9)
    if len(horizons) < 2 or seed % 3:
        return
    ibs = integrated_brier_score(outcome, outcome, predicted, horizons)
    assert total.integrated() == pytest.approx(ibs, abs=1e-9)
    curve = life.curve(0).survival[[grid.index(h) for h in horizons]]
    kaplan_meier = KaplanMeierFitter().fit(whole.months, whole.event).predict(horizons).to_numpy()
    np.testing.assert_allclose(curve, kaplan_meier, atol=1e-9)
    null = np.broadcast_to(kaplan_meier, predicted.shape)
    _, expected = brier_score(outcome, outcome, null, horizons)
    np.testing.assert_allclose(total.null_scores(curve), expected, atol=1e-9)
    null_ibs = integrated_brier_score(outcome, outcome, null, horizons)
    if null_ibs > 0:
        assert total.scaled(curve) == pytest.approx(1 - ibs / null_ibs, rel=1e-9)
    else:
        assert np.isnan(total.scaled(curve))


def test_a_hand_worked_case() -> None:
    # Times 1 censored, 2 event, 3 event, 5 beyond; S(3) = .5 for all. G(1) = 1 - 1/4 = 3/4 and
    # stays: cases 2 and 3 weigh 4/3 each, the control 4/3: BS(3) = 1/4 (4/3)(3)(1/4) = 1/4.
    g = ex.censoring(
        ex.Cohort(np.array([1.0, 2, 3, 5]), np.array([0, 1, 1, 0]), np.zeros(4)), (0, 1, 2, 3)
    )
    half = np.full((4, 1), 0.5)
    sums = BrierSums.of([1, 2, 3, 5], [0, 1, 1, 0], half, horizons_months=(3.0,), censoring=g)
    assert g.survival == (1.0, 0.75, 0.75, 0.75)
    assert (sums.cases.tolist(), sums.controls.tolist()) == ([2], [1])
    assert sums.scores[0] == pytest.approx(0.25, abs=1e-15)
    assert np.isnan(sums.integrated())


def test_without_events_it_is_the_controls_weighted_up() -> None:
    whole = ex.cohort(50, np.random.default_rng(3), kind="no event")
    found = brier(whole, ex.censoring(whole, GRID))
    for index, horizon in enumerate(HORIZONS):
        left = whole.part(whole.months > horizon)
        # Nobody has the event, so 1 / G is all over those still there.
        expected = np.mean((1 - left.survival(np.array([horizon]))) ** 2)
        assert found.scores[index] == pytest.approx(expected, abs=1e-12)


def test_a_monthly_grid_is_close_to_exact_times() -> None:
    rng = np.random.default_rng(4)
    whole = ex.cohort(800, rng, whole_months=False)
    exact = brier(whole, ex.censoring(whole, ex.exact_grid(whole.months)))
    monthly = brier(whole, ex.censoring(whole, GRID))
    np.testing.assert_allclose(monthly.scores, exact.scores, atol=0.004)


@given(st.integers(0, 10**6), st.sampled_from(["mixed", "no event", "all events"]))
@settings(max_examples=40, deadline=None)
def test_laws(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    whole = ex.cohort(int(rng.integers(1, 60)), rng, whole_months=False, kind=kind)
    g = ex.censoring(whole, GRID)
    a, b, c = (brier(p, g, replicates=3, rng=rng) for p in ex.hospitals(whole, 3, rng))
    assert a + b == b + a
    assert a + BrierSums.empty(HORIZONS, 3) == a
    assert BrierSums.from_dict(json.loads(json.dumps(a.to_dict()))) == a
    left, right, all_of_them = (a + b) + c, a + (b + c), brier(whole, g)
    np.testing.assert_allclose(left.replicates, right.replicates, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(left.squares, right.squares, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(left.scores, all_of_them.scores, rtol=1e-12, atol=1e-12)
    assert left.cases.tolist() == all_of_them.cases.tolist()
    bare = BrierSums.from_dict(json.loads(json.dumps(all_of_them.to_dict())))
    assert bare + all_of_them == all_of_them + all_of_them


def test_replicates_are_the_sums_of_the_resampled_hospital() -> None:
    whole = ex.cohort(40, np.random.default_rng(1))
    g = ex.censoring(whole, GRID)
    found = brier(whole, g, replicates=3, rng=np.random.default_rng(9))
    draws = np.random.default_rng(9).multinomial(40, np.full(40, 1 / 40), size=3)
    for times, row in zip(draws, found.replicates, strict=True):
        again = brier(whole.part(np.repeat(np.arange(40), times)), g)
        np.testing.assert_allclose(row[:, 0], again.squares)
        np.testing.assert_allclose(row[:, 1], again.case_weight)
        np.testing.assert_allclose(row[:, 2], again.control_weight)


def test_the_pooled_interval_needs_only_sums() -> None:
    rng = np.random.default_rng(2)
    whole = ex.cohort(400, rng)
    g = ex.censoring(whole, GRID)
    parts = [brier(p, g, replicates=400, rng=rng) for p in ex.hospitals(whole, 4, rng)]
    total = merge_all(parts)
    found = total.intervals()
    assert found.shape == (5, 2)
    centre = np.append(total.scores, total.integrated())
    assert ((found[:, 0] < centre) & (centre < found[:, 1])).all()
    # The standard error of a mean: the half width is near 1.96 sd / sqrt(n) of the terms.
    case = whole.event[:, None] & (whole.months[:, None] <= np.asarray(HORIZONS))
    control = whole.months[:, None] > np.asarray(HORIZONS)
    s = whole.survival(np.asarray(HORIZONS))
    terms = s**2 * case * g.weight(whole.months)[:, None]
    terms = terms + (1 - s) ** 2 * control * g.weight(HORIZONS)
    expected = 2 * 1.96 * terms.std(axis=0) / 20
    np.testing.assert_allclose(np.diff(found[:4], axis=1).ravel(), expected, rtol=0.25)
    assert np.isnan(brier(whole, g).intervals()).all()


def test_no_horizon_or_difference_of_horizons_is_of_few_patients() -> None:
    rng = np.random.default_rng(7)
    horizons = tuple(float(month) for month in range(3, 60, 3))
    kept = 0
    for _ in range(60):
        whole = ex.cohort(int(rng.integers(1, 200)), rng, whole_months=False)
        own = brier(whole, ex.censoring(whole, GRID), horizons, replicates=2, rng=rng)
        told = own.suppressed(5)
        sent = told.withheld == 0
        kept += int(sent.sum())
        for count in (own.cases, own.num_patients - own.cases - own.controls):
            steps = np.diff(count[sent], prepend=0)
            assert ((steps == 0) | (steps >= 5)).all()
        assert (own.controls[sent] >= 5).all()
        assert (told.squares[~sent] == 0).all() and (told.replicates[:, ~sent] == 0).all()
        np.testing.assert_array_equal(told.scores[sent], own.scores[sent])
        assert np.isnan(told.scores[~sent]).all()
    assert kept > 100
    assert own.suppressed(1) is own


def test_what_leaves_is_sums() -> None:
    whole = ex.cohort(60, np.random.default_rng(2), whole_months=False)
    sent = brier(whole, ex.censoring(whole, GRID)).suppressed(5).to_dict()
    own = {*whole.months, *whole.risk, *whole.survival(np.asarray(HORIZONS)).ravel()}
    numbers = [value for row in sent.values() for value in row]
    assert not own & set(numbers) - {0.0}
    assert len(numbers) == 8 * len(HORIZONS)


def test_the_censoring_curve_travels() -> None:
    g = ex.censoring(ex.cohort(50, np.random.default_rng(1)), GRID)
    sent = json.loads(json.dumps(g.to_dict()))
    assert CensoringCurve.from_dict(sent) == g
    for change, sentence in (
        ({"survival": "x"}, "CensoringCurve.survival must be a list of finite numbers"),
        ({"grid_months": [0.0, True]}, "CensoringCurve.grid_months must be a list"),
        ({"times": [1.0]}, "has 1 unknown key"),
        ({"survival": [1.0]}, "one value a grid point"),
    ):
        with pytest.raises(PayloadError, match=sentence):
            CensoringCurve.from_dict({**sent, **change})


def test_bad_input_is_named() -> None:
    g = CensoringCurve((0.0, 60.0), (1.0, 1.0))
    with pytest.raises(PayloadError, match=r"outside \[0, 1\]"):
        BrierSums.of([1.0], [1], [[1.2]], horizons_months=(6.0,), censoring=g)
    with pytest.raises(PayloadError, match="must rise from above 0"):
        BrierSums.empty((0.0, 6.0))
    with pytest.raises(PayloadError, match="pass rng"):
        BrierSums.of([1.0], [1], [[0.2]], horizons_months=(6.0,), censoring=g, replicates=1)
    with pytest.raises(PayloadError, match="different horizons"):
        BrierSums.empty((6.0,)) + BrierSums.empty((7.0,))
    with pytest.raises(PayloadError, match="one value a horizon"):
        BrierSums.empty((6.0,)).null_scores([0.1, 0.2])
    wrong = {**BrierSums.empty((6.0,)).to_dict(), "cases": [3]}
    with pytest.raises(PayloadError, match="more cases than patients"):
        BrierSums.from_dict(wrong)
    with pytest.raises(PayloadError, match="start at 1 and never rise"):
        CensoringCurve((0.0, 1.0), (0.9, 0.8))
    with pytest.raises(PayloadError, match="negative or not finite"):
        g.at([-1.0])
