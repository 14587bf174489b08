"""What the centre derives from summed survey answers."""

import numpy as np
import pytest

from protocol.errors import ConfigError, QuorumError
from protocol.stats import Histogram, LifeTable, Moments
from protocol.survival_config import Prognosis
from server.agreement import (
    evaluation_horizons,
    interval_hazards,
    merge_moments,
    risk_cuts,
    scales,
    supported_months,
    time_grid,
)

GRID = tuple(6.0 * step for step in range(11))


def table(months: np.ndarray, event: np.ndarray) -> LifeTable:
    return LifeTable.of(months, event, np.zeros(len(months), int), grid_months=GRID, names=("all",))


def test_scales_of_the_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal([60, 2], [10, 0.5], size=(50, 2))
    values[3, 1] = np.nan
    names = ("age", "nyha")
    parts = [Moments.of(names, values[:20]), Moments.of(names, values[20:])]
    agreed = scales(merge_moments(parts))
    for column, name in enumerate(names):
        assert agreed[name] == pytest.approx(
            [np.nanmean(values[:, column]), np.nanstd(values[:, column], ddof=1)], rel=1e-12
        )


def test_a_constant_or_unseen_covariate_is_not_divided_by_zero() -> None:
    values = np.array([[1.0, np.nan], [1.0, np.nan]])
    agreed = scales(Moments.of(("sex", "bmi"), values))
    assert agreed == {"sex": [1.0, 1.0], "bmi": [0.0, 1.0]}


def test_the_grid_ends_where_too_few_are_followed() -> None:
    rng = np.random.default_rng(1)
    months = np.concatenate([rng.uniform(0, 36, 150), np.full(30, 47.0)])
    event = rng.integers(0, 2, len(months))
    tables = [table(months[:90], event[:90]), table(months[90:], event[90:])]
    cuts = time_grid(tables, Prognosis(num_intervals=6, max_horizon_months=60))
    # 30 of 180 patients (17 %) are still at risk at 42 months, none at 48.
    assert cuts == [7.0, 14.0, 21.0, 28.0, 35.0, 42.0]


def test_the_grid_reaches_the_last_follow_up_where_a_study_asks_for_it() -> None:
    rng = np.random.default_rng(1)
    months = np.concatenate([rng.uniform(0, 36, 150), np.full(30, 47.0)])
    parts = [table(half, np.ones(len(half))) for half in (months[:90], months[90:])]
    wanted = Prognosis(num_intervals=6, max_horizon_months=60, grid_end="follow_up")
    # The last are seen in (42, 48], though after 42 months nobody new could be judged.
    assert time_grid(parts, wanted) == [8.0, 16.0, 24.0, 32.0, 40.0, 48.0]
    assert supported_months(parts) == 42.0
    # Whoever is followed beyond what was surveyed ends where that ends.
    assert time_grid([table(months + 30, np.ones(180))], wanted)[-1] == GRID[-1] == 60.0


@pytest.mark.parametrize("grid_end", ["at_risk", "follow_up"])
def test_intervals_by_events_are_quantiles(grid_end: str) -> None:
    # Without censoring Kaplan-Meier's quantiles are the sample's, and half-years lose little.
    months = np.random.default_rng(3).exponential(20, 4000)
    months = months[months < 60]
    parts = [table(half, np.ones(len(half))) for half in np.array_split(months, 3)]
    section = Prognosis(num_intervals=5, intervals="events", grid_end=grid_end)
    cuts = time_grid(parts, section)
    assert cuts[-1] == (60.0 if grid_end == "follow_up" else supported_months(parts))
    assert supported_months(parts) < 60
    inside = months[months <= cuts[-1]]
    found = np.histogram(inside, [0, *cuts])[0] / len(inside)
    assert found == pytest.approx([0.2] * 5, abs=0.02)


def test_intervals_by_events_need_events() -> None:
    months = np.linspace(1, 60, 200)
    section = Prognosis(num_intervals=5, intervals="events")
    with pytest.raises(
        QuorumError, match="do not suffice for 5 intervals in which the curve falls alike"
    ):
        time_grid([table(months, np.zeros(200))], section)


def test_too_few_patients_are_said_to_be_too_few() -> None:
    months = np.full(12, 30.0)
    with pytest.raises(QuorumError, match="follow 12 patients with a known outcome; prognosis"):
        time_grid([table(months, np.ones(12))], Prognosis())


def test_risk_groups_are_of_equal_size_over_all_hospitals() -> None:
    scores = np.random.default_rng(2).random(900)
    parts = [Histogram.of(s, lo=0.0, hi=1.0, num_bins=200) for s in np.split(scores, [100, 350])]
    cuts = risk_cuts(parts, 3)
    counts = np.bincount(np.searchsorted(cuts, scores))
    assert np.abs(counts - 300).max() <= 6


def test_hazards_are_those_of_kaplan_meier() -> None:
    # 10 patients: 1 event by month 6, 3 of 9 by month 12, then 2 of 6 by month 18.
    months = np.array([5.0, *[11.0] * 3, *[17.0] * 2, *[60.0] * 4])
    event = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    parts = [table(months[::2], event[::2]), table(months[1::2], event[1::2])]
    found = interval_hazards(parts, [6.0, 12.0, 18.0])
    assert found == pytest.approx([1 / 10, 3 / 9, 2 / 6])
    # Half of an interval has half its cumulative hazard.
    assert interval_hazards(parts, [3.0, 12.0])[0] == pytest.approx(1 - 0.9**0.5)
    assert interval_hazards([table(months, 0 * event)], [12.0, 60.0]) == [0.0, 0.0]


def test_horizons_are_those_named_or_the_last_with_enough_followed() -> None:
    assert evaluation_horizons((), 36.0) == [36.0]
    assert evaluation_horizons((12.0, 36.0), 36.0) == [12.0, 36.0]
    with pytest.raises(ConfigError, match=r"names 60, but .* patients for 36 months only"):
        evaluation_horizons((12.0, 60.0), 36.0)
