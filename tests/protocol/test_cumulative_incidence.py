"""Aalen-Johansen from hospitals' tables: scikit-survival, lifelines, Kaplan-Meier, by hand."""

import json

import numpy as np
import pytest
from lifelines import AalenJohansenFitter
from sksurv.nonparametric import cumulative_incidence_competing_risks

from protocol.errors import PayloadError
from protocol.stats import LifeTable, merge_all, monthly_grid
from protocol.stats.cumulative_incidence import CauseTable
from protocol.stats.whole_table import suppressed_whole

CAUSES = ("sudden death", "other death")
GRID = monthly_grid(60.0)


def draw(number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    times = np.column_stack(
        [rng.uniform(5, 90, number), rng.exponential(40, number), rng.exponential(60, number)]
    )
    return np.ceil(times.min(axis=1)), times.argmin(axis=1)


def table(months, cause, grid=GRID) -> CauseTable:
    return CauseTable.of(months, cause, grid_months=grid, causes=CAUSES)


def test_equals_scikit_survival_on_200_pooled_cohorts() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        months, cause = draw(int(rng.integers(30, 80)), rng)
        if set(cause) != {0, 1, 2}:
            continue
        grid = tuple(float(month) for month in range(int(months.max()) + 1))
        where = rng.integers(0, 3, len(months))
        total = merge_all([table(months[where == h], cause[where == h], grid) for h in range(3)])
        with np.errstate(all="ignore"):
            at, expected, limits = cumulative_incidence_competing_risks(
                cause, months, conf_type="log-log", var_type="Dinse_Approx"
            )
        index = at.astype(int)
        for which in (0, 1):
            curve = total.curve(which)
            np.testing.assert_allclose(curve.incidence[index], expected[which + 1], atol=1e-9)
            if cause[months == months.max()].all():
                continue  # scikit-survival divides by 0 there and gives limits of no width
            inside = expected[which + 1] > 0
            np.testing.assert_allclose(
                curve.lower[index][inside], limits[which + 1, 0][inside], atol=1e-6
            )
            np.testing.assert_allclose(
                curve.upper[index][inside], limits[which + 1, 1][inside], atol=1e-6
            )


def test_equals_lifelines_without_ties() -> None:
    rng = np.random.default_rng(5)
    times = np.column_stack([rng.uniform(5, 90, 60), rng.exponential(40, (60, 2))])
    months, cause = times.min(axis=1), times.argmin(axis=1)
    grid = (0.0, *sorted(months.tolist()))
    fitted = AalenJohansenFitter(calculate_variance=False).fit(months, cause, event_of_interest=1)
    expected = fitted.cumulative_density_.to_numpy().ravel()
    np.testing.assert_allclose(table(months, cause, grid).curve(0).incidence, expected, atol=1e-9)


def test_by_hand() -> None:
    # 5 patients, months 1 sudden, 2 censored, 3 other, 4 sudden, 5 censored (at risk 5 4 3 2 1).
    # F_sudden: 1/5; at 4 S = 4/5 * 2/3 = 8/15, so + 8/15 * 1/2 = 7/15. F_other at 3: 4/5 / 3.
    total = table([1, 2, 3, 4, 5], [1, 0, 2, 1, 0], (0, 1, 2, 3, 4, 5))
    np.testing.assert_allclose(
        total.curve(0).incidence, [0, 3 / 15, 3 / 15, 3 / 15, 7 / 15, 7 / 15]
    )
    np.testing.assert_allclose(total.curve(1).incidence, [0, 0, 0, 4 / 15, 4 / 15, 4 / 15])


def test_causes_and_survival_add_up_and_one_cause_is_kaplan_meier() -> None:
    rng = np.random.default_rng(2)
    months, cause = draw(120, rng)
    total = table(months, cause)
    life = LifeTable.of(
        months, cause > 0, np.zeros(120, int), grid_months=GRID, names=("all",)
    ).curve(0)
    summed = total.curve(0).incidence + total.curve(1).incidence
    np.testing.assert_allclose(summed, 1 - life.survival, atol=1e-12)
    alone = table(months, np.minimum(cause, 1)).curve(0)
    np.testing.assert_allclose(alone.incidence, 1 - life.survival, atol=1e-12)
    greenwood = life.survival**2 * np.concatenate([[0], np.cumsum(_greenwood(months, cause))])
    np.testing.assert_allclose(alone.standard_error**2, greenwood, atol=1e-12)


def _greenwood(months, cause) -> list[float]:
    steps = []
    for month in GRID[1:]:
        d, n = ((months == month) & (cause > 0)).sum(), (months >= month).sum()
        steps.append(d / (n * (n - d)) if n > d else 0.0)
    return steps


def test_laws_and_odd_hospitals() -> None:
    rng = np.random.default_rng(3)
    months, cause = draw(70, rng)
    cuts = (slice(0, 1), slice(1, 1), slice(1, 30), slice(30, 70))
    parts = [table(months[cut], cause[cut]) for cut in cuts]
    total = merge_all(parts)
    assert total == merge_all(parts[::-1]) == table(months, cause)
    assert total + CauseTable.empty(GRID, CAUSES) == total
    assert CauseTable.from_dict(json.loads(json.dumps(total.to_dict()))) == total
    for event in (0, 1, 2):
        curve = table([3.0, 4.0], [event, event]).curve(0)
        assert curve.incidence[3] == (0.5 if event == 1 else 0.0)
    beyond = table([70.0], [1])
    assert beyond.curve(0).incidence[-1] == 0 and beyond.table.num_patients.sum() == 1
    assert np.isnan(CauseTable.empty(GRID, CAUSES).curve(0).incidence[1:]).all()


def test_all_causes_leave_or_none() -> None:
    rng = np.random.default_rng(6)
    months, cause = draw(100, rng)
    told = table(months, cause).suppressed(5)
    assert told.table.num_patients.sum() == pytest.approx(100)
    # A few wide boxes of events each, so the curve is rough but not elsewhere.
    rough, exact = told.curve(0).incidence, table(months, cause).curve(0).incidence
    np.testing.assert_allclose(rough[:37], exact[:37], atol=0.1)
    cause[np.flatnonzero(cause == 2)[3:]] = 0
    few = table(months, cause).suppressed(5)
    assert few.table.num_patients.sum() == 0 and few.table.withheld.tolist() == [1, 1, 1]
    assert suppressed_whole(table(months, cause).table, 1) == table(months, cause).table
    for row in (*told.table.events, *told.table.censored):
        assert row.sum() == 0 or row.sum() >= 5 - 1e-9


def test_bad_input_is_named() -> None:
    with pytest.raises(PayloadError, match="A cause of an event does not exist"):
        table([1.0], [3])
    with pytest.raises(PayloadError, match="Times and causes differ in length"):
        table([1.0], [1, 0])
    with pytest.raises(PayloadError, match="There is no such cause"):
        table([1.0], [1]).curve(2)
    with pytest.raises(PayloadError, match="groups are the causes and, last, censored"):
        CauseTable(LifeTable.empty(GRID, ("a", "b")))
