"""Net benefit and net reclassification: counts without censoring, lifelines with it, by hand."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from lifelines import KaplanMeierFitter

from protocol.errors import PayloadError
from protocol.stats import LifeTable, merge_all
from protocol.stats.decision_curve import band_table, decision_curve
from protocol.stats.reclassification import MOVES, move_table, net_reclassification
from protocol.stats.whole_table import suppressed_whole


def _load() -> ModuleType:
    place = Path(__file__).with_name("survival_examples.py")
    spec = importlib.util.spec_from_file_location("survival_examples", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ex = _load()
HORIZON = 24.0
GRID = tuple(float(month) for month in range(25))
THRESHOLDS = (0.1, 0.25, 0.4, 0.7)


def predicted(patients) -> np.ndarray:
    return 1 - patients.survival(np.array([HORIZON])).ravel()


def bands(patients) -> LifeTable:
    return band_table(
        patients.months,
        patients.event,
        predicted(patients),
        thresholds=THRESHOLDS,
        grid_months=GRID,
    )


def kaplan_meier_risk(months, event) -> float:
    """lifelines at the horizon; nan where nobody is followed to it and the curve is not 0."""
    if not len(months):
        return 0.0
    value = float(KaplanMeierFitter().fit(months, event).predict(HORIZON))
    last = months.max()
    return 1 - value if last >= HORIZON or value == 0 else np.nan


def test_net_benefit_equals_kaplan_meier_of_the_pooled_patients() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        whole = ex.cohort(int(rng.integers(5, 150)), rng)
        total = merge_all([bands(part) for part in ex.hospitals(whole, 4, rng)])
        found, risk = decision_curve(total, THRESHOLDS), predicted(whole)
        overall = kaplan_meier_risk(whole.months, whole.event)
        for index, p in enumerate(THRESHOLDS):
            high = risk >= p
            share, odds = high.mean(), p / (1 - p)
            f = kaplan_meier_risk(whole.months[high], whole.event[high])
            assert found.num_treated[index] == high.sum()
            expected = share * f - share * (1 - f) * odds
            np.testing.assert_allclose(found.model[index], expected, atol=1e-9)
            all_treated = overall - (1 - overall) * odds
            np.testing.assert_allclose(found.treat_all[index], all_treated, atol=1e-9)


def test_without_censoring_net_benefit_is_true_and_false_positives() -> None:
    # 8 patients, threshold .5 (odds 1): treated .9 event, .8 event, .6 none, .5 none, so
    # 2/8 - 2/8 = 0; treat all: 3/8 - 5/8.
    months = [1, 2, 30, 30, 3, 30, 30, 30]
    risk = [0.9, 0.8, 0.6, 0.5, 0.3, 0.2, 0.1, 0.1]
    event = np.array(months) < 24
    table = band_table(months, event, risk, thresholds=(0.5,), grid_months=GRID)
    found = decision_curve(table, (0.5,))
    assert found.model[0] == pytest.approx(0, abs=1e-15)
    assert found.treat_all[0] == pytest.approx(-2 / 8)
    assert (found.num_treated.tolist(), found.num_patients) == ([4], 8)


def test_nobody_treated_is_no_benefit_and_no_patient_is_nan() -> None:
    table = band_table([1, 30], [1, 0], [0.1, 0.1], thresholds=(0.5,), grid_months=GRID)
    assert decision_curve(table, (0.5,)).model[0] == 0
    nobody = band_table([], [], [], thresholds=(0.5,), grid_months=GRID)
    assert np.isnan(decision_curve(nobody, (0.5,)).treat_all).all()
    assert table + nobody == table


@pytest.mark.parametrize("thresholds", [(), (0.0,), (0.5, 0.5), (0.3, 1.0)])
def test_impossible_thresholds_are_refused(thresholds) -> None:
    with pytest.raises(PayloadError, match=r"must rise inside \(0, 1\)"):
        band_table([1], [1], [0.5], thresholds=thresholds, grid_months=GRID)


def test_bands_of_other_thresholds_are_refused() -> None:
    table = band_table([1], [1], [0.5], thresholds=(0.2,), grid_months=GRID)
    with pytest.raises(PayloadError, match="not those of the thresholds"):
        decision_curve(table, (0.3,))


def test_nri_without_censoring_is_the_counts_of_pencina() -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        number = int(rng.integers(4, 80))
        event = rng.random(number) < 0.4
        event[:2] = True, False
        months = np.where(event, np.ceil(rng.uniform(0, 24, number)), 30)
        old, new = rng.random(number).round(2), rng.random(number).round(2)
        for cuts in ((), (0.2, 0.5)):
            parts = np.array_split(rng.permutation(number), 3)
            total = merge_all(
                [
                    move_table(months[p], event[p], old[p], new[p], cuts=cuts, grid_months=GRID)
                    for p in parts
                ]
            )
            a, b = (np.searchsorted(cuts, x, "right") if cuts else x for x in (old, new))
            found = net_reclassification(total)
            up, down = b > a, b < a
            assert found.event == pytest.approx(up[event].mean() - down[event].mean(), abs=1e-9)
            expected = down[~event].mean() - up[~event].mean()
            assert found.non_event == pytest.approx(expected, abs=1e-9)
            assert found.total == found.event + found.non_event
            assert (found.num_up, found.num_down) == (up.sum(), down.sum())


def test_nri_with_censoring_weighs_by_kaplan_meier() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        whole = ex.cohort(int(rng.integers(60, 150)), rng)
        old, new = (
            predicted(whole),
            np.clip(predicted(whole) + rng.normal(0, 0.1, len(whole)), 0, 1),
        )
        table = move_table(whole.months, whole.event, old, new, cuts=(0.3, 0.6), grid_months=GRID)
        found = net_reclassification(table)
        change = np.searchsorted((0.3, 0.6), new, "right") - np.searchsorted(
            (0.3, 0.6), old, "right"
        )
        f = kaplan_meier_risk(whole.months, whole.event)
        up = kaplan_meier_risk(whole.months[change > 0], whole.event[change > 0])
        down = kaplan_meier_risk(whole.months[change < 0], whole.event[change < 0])
        n_up, n_down = (change > 0).sum(), (change < 0).sum()
        gained = (n_up * up - n_down * down) / (len(whole) * f)
        spared = (n_down * (1 - down) - n_up * (1 - up)) / (len(whole) * (1 - f))
        np.testing.assert_allclose((found.event, found.non_event), (gained, spared), atol=1e-9)


def test_the_same_model_reclassifies_nobody() -> None:
    whole = ex.cohort(50, np.random.default_rng(1))
    p = predicted(whole)
    found = net_reclassification(
        move_table(whole.months, whole.event, p, p, cuts=(), grid_months=GRID)
    )
    assert (found.event, found.non_event, found.num_same) == (0, 0, 50)


def test_odd_hospitals_and_wrong_tables() -> None:
    blank = net_reclassification(LifeTable.empty(GRID, MOVES))
    assert np.isnan(blank.event) and np.isnan(blank.non_event)
    lone = net_reclassification(move_table([1], [1], [0.1], [0.4], cuts=(), grid_months=GRID))
    assert lone.event == 1 and np.isnan(lone.non_event)
    with pytest.raises(PayloadError, match="needs the groups up, same, down"):
        net_reclassification(LifeTable.empty(GRID, ("a",)))
    with pytest.raises(PayloadError, match="differ in length"):
        move_table([1], [1], [0.1], [0.4, 0.2], cuts=(), grid_months=GRID)
    with pytest.raises(PayloadError, match="not finite"):
        move_table([1], [1], [0.1], [np.nan], cuts=(), grid_months=GRID)


def test_movers_leave_together_or_not_at_all() -> None:
    rng = np.random.default_rng(8)
    sent = 0
    for _ in range(50):
        whole = ex.cohort(int(rng.integers(5, 120)), rng)
        new = np.clip(predicted(whole) + rng.normal(0, 0.2, len(whole)), 0, 1)
        own = move_table(
            whole.months, whole.event, predicted(whole), new, cuts=(0.4,), grid_months=GRID
        )
        told = suppressed_whole(own, 4)
        assert told.num_patients.sum() in (0, pytest.approx(len(whole)))
        assert (told.withheld == told.withheld[0]).all()
        sent += bool(told.num_patients.sum())
        for row in (*told.events, *told.censored):
            assert row.sum() < 1e-9 or row.sum() >= 4 - 1e-9
    assert sent > 5
