"""Uno, Antolini and AUC(t) within hospitals: scikit-survival, pycox, hand-worked, bootstrap."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from pycox.evaluation.concordance import concordance_td
from sksurv.metrics import concordance_index_ipcw, cumulative_dynamic_auc

from protocol.errors import PayloadError
from protocol.stats import PairCounts, monthly_grid
from protocol.stats.censoring import CensoringCurve
from protocol.stats.timed_pairs import antolini_pairs, auc_pairs, uno_pairs
from protocol.stats.weighted_pairs import WeightedPairs


def _load() -> ModuleType:
    place = Path(__file__).with_name("survival_examples.py")
    spec = importlib.util.spec_from_file_location("survival_examples", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ex = _load()
GRID = monthly_grid(60.0)
UNWEIGHTED = CensoringCurve((0.0, 1000.0), (1.0, 1.0))


def pairs(kind: str, patients, g: CensoringCurve = UNWEIGHTED, **options) -> WeightedPairs:
    outcome = (patients.months, patients.event)
    if kind == "uno":
        return uno_pairs(*outcome, patients.risk, tau_months=48, censoring=g, **options)
    if kind == "auc":
        return auc_pairs(*outcome, patients.risk, horizon_months=24, censoring=g, **options)
    curves = patients.survival(np.asarray(GRID))
    return antolini_pairs(*outcome, curves, grid_months=GRID, tau_months=48, **options)


@pytest.mark.parametrize("block", range(10))
def test_one_hospital_equals_scikit_survival(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        rng = np.random.default_rng(seed)
        whole = ex.cohort(int(rng.integers(20, 45)), rng, whole_months=bool(seed % 2))
        g, outcome = ex.censoring(whole, ex.exact_grid(whole.months)), ex.structured(whole)
        given = (whole.months, whole.event, whole.risk)
        if g.at(whole.months[whole.event & (whole.months < 30)]).min(initial=1) > 0:
            value = concordance_index_ipcw(outcome, outcome, whole.risk, tau=30.0, tied_tol=0)[0]
            found = uno_pairs(*given, tau_months=30.0, censoring=g)
            assert found.value == pytest.approx(value, abs=1e-9)
        if g.at(whole.months[whole.event]).min(initial=1) > 0:
            value = cumulative_dynamic_auc(outcome, outcome, whole.risk, [15.0], tied_tol=0)[0][0]
            found = auc_pairs(*given, horizon_months=15.0, censoring=g)
            assert found.value == pytest.approx(float(value), abs=1e-9, nan_ok=True)


def test_antolini_equals_pycox_on_200_cohorts() -> None:
    # Curves that cross: each patient has a shape of their own. pycox's "antolini" gives equal
    # predictions nothing, so it is concordant / comparable.
    for seed in range(200):
        rng = np.random.default_rng(seed)
        whole = ex.cohort(int(rng.integers(2, 60)), rng, kind=("mixed", "all events")[seed % 2])
        grid = ex.exact_grid(whole.months)
        shape = rng.choice([0.5, 1.0, 2.0], len(whole))
        curves = np.round(np.exp(-((np.asarray(grid)[None, :] / 40) ** shape[:, None])), 2)
        found = antolini_pairs(whole.months, whole.event, curves, grid_months=grid, tau_months=1e6)
        assert np.isnan(found.value) == (found.num_pairs == 0)
        if found.num_pairs:
            index, event = np.searchsorted(grid, whole.months), whole.event.astype(int)
            pooled = np.ascontiguousarray(curves.T)
            expected = concordance_td(whole.months, event, pooled, index, "antolini")
            assert found.concordant / found.comparable == pytest.approx(expected, abs=1e-9)


def test_antolini_by_hand() -> None:
    # Curves at months 0, 2, 4: A 1 .6 .5, B 1 .8 .2, C 1 .6 .4. A event at 2, B event at 3, C
    # censored at 4. A-B: .6 < .8 concordant; A-C: .6 = .6 tied; B-C at month 3: B (.8 + .2) / 2 =
    # .5, C (.6 + .4) / 2 = .5: tied. (1 + 2 / 2) / 3.
    curves = [[1, 0.6, 0.5], [1, 0.8, 0.2], [1, 0.6, 0.4]]
    found = antolini_pairs([2, 3, 4], [1, 1, 0], curves, grid_months=(0, 2, 4), tau_months=10)
    assert (found.concordant, found.tied, found.comparable) == (1, 2, 3)
    assert found.value == 2 / 3


def test_with_g_of_one_uno_is_harrell_and_proportional_curves_give_harrell_too() -> None:
    for seed in range(20):
        whole = ex.cohort(50, np.random.default_rng(seed))
        harrell = PairCounts.of(whole.months, whole.event, whole.risk, tau_months=48)
        for kind in ("uno", "antolini"):
            found = pairs(kind, whole)
            assert found.value == pytest.approx(harrell.c_index, abs=1e-12)
            assert found.num_pairs == harrell.comparable


@pytest.mark.parametrize("kind", ["uno", "antolini", "auc"])
def test_laws(kind: str) -> None:
    rng = np.random.default_rng(3)
    whole = ex.cohort(90, rng, whole_months=False)
    g = ex.censoring(whole, GRID)
    options = {"replicates": 5, "rng": rng}
    a, b, c = (pairs(kind, part, g, **options) for part in ex.hospitals(whole, 3, rng))
    assert a + b == b + a
    left, right = (a + b) + c, a + (b + c)
    np.testing.assert_allclose(left.replicates, right.replicates, rtol=1e-12)
    assert left.value == pytest.approx(right.value, rel=1e-12)
    assert a + pairs(kind, whole.part(slice(0, 0)), g, **options) == a
    assert a + WeightedPairs.empty(kind, a.tau_months, 5) == a
    assert WeightedPairs.from_dict(json.loads(json.dumps(a.to_dict()))) == a
    bare = pairs(kind, whole, g)
    assert WeightedPairs.from_dict(json.loads(json.dumps(bare.to_dict()))) + bare == bare + bare
    # Splitting a hospital loses the pairs across the parts, never a patient.
    assert left.num_patients == bare.num_patients and left.num_pairs < bare.num_pairs
    assert bare.suppressed(1) is bare


@pytest.mark.parametrize("kind", ["uno", "antolini", "auc"])
def test_replicates_are_the_sums_of_the_resampled_hospital(kind: str) -> None:
    whole = ex.cohort(30, np.random.default_rng(1))
    g = ex.censoring(whole, GRID)
    found = pairs(kind, whole, g, replicates=4, rng=np.random.default_rng(9))
    draws = np.random.default_rng(9).multinomial(30, np.full(30, 1 / 30), size=4)
    for times, row in zip(draws, found.replicates, strict=True):
        again = pairs(kind, whole.part(np.repeat(np.arange(30), times)), g)
        np.testing.assert_allclose(row, [again.concordant, again.tied, again.comparable])
    low, high = pairs(kind, whole, g, replicates=300, rng=np.random.default_rng(2)).interval()
    assert low < found.value < high


@pytest.mark.parametrize("kind", ["uno", "antolini", "auc"])
def test_odd_hospitals_are_finite_or_nan(kind: str) -> None:
    rng = np.random.default_rng(6)
    for size, sort in ((0, "mixed"), (1, "all events"), (9, "no event"), (9, "all events")):
        whole = ex.cohort(size, rng, kind=sort)
        found = pairs(kind, whole, ex.censoring(whole, GRID))
        assert np.isnan(found.value) == (found.num_pairs == 0)
        assert found.suppressed(10) == WeightedPairs.empty(kind, found.tau_months)
    # Events 8 of 10: the two others would be found by subtraction.
    event = np.arange(10) < 8
    lone = ex.Cohort(np.arange(1.0, 11.0) * 4, event, np.linspace(0, 1, 10))
    assert pairs("uno", lone).suppressed(3).num_patients == 0


def test_what_leaves_is_totals() -> None:
    whole = ex.cohort(40, np.random.default_rng(2), whole_months=False)
    sent = pairs("uno", whole, ex.censoring(whole, GRID)).suppressed(5).to_dict()
    flat = [value for value in sent.values() if isinstance(value, float)]
    own = {*whole.months.tolist(), *whole.risk.tolist()}
    assert sent["replicates"] == [] and not own & set(flat)
    assert sent["num_patients"] == 40


def test_bad_input_is_named() -> None:
    with pytest.raises(PayloadError, match="Times and events differ in length"):
        uno_pairs([1.0], [1, 0], [0.1], tau_months=9, censoring=UNWEIGHTED)
    with pytest.raises(PayloadError, match="A risk is not finite"):
        auc_pairs([1.0], [1], [np.nan], horizon_months=9, censoring=UNWEIGHTED)
    with pytest.raises(PayloadError, match="one row a patient"):
        antolini_pairs([1.0], [1], [[1.0]], grid_months=(0, 1), tau_months=9)
    with pytest.raises(PayloadError, match="pass rng"):
        uno_pairs([1.0], [1], [0.1], tau_months=9, censoring=UNWEIGHTED, replicates=2)
    with pytest.raises(PayloadError, match="different measures"):
        WeightedPairs.empty("uno", 60) + WeightedPairs.empty("auc", 60)
    wrong = {**WeightedPairs.empty("uno", 60).to_dict(), "concordant": 2.0}
    with pytest.raises(PayloadError, match="more concordant and tied"):
        WeightedPairs.from_dict(wrong)
    with pytest.raises(PayloadError, match="must be one of uno, antolini, auc"):
        WeightedPairs.empty("gini", 60)
