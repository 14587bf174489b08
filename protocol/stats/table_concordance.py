"""Concordance across hospitals from a score table, with a proven interval.

Write a pair (i, j), i with the event, as certain when its boxes leave no choice, as possible when
some placement of both patients in their boxes makes it so. The index of the true, unsent values is
``C = (A + x) / (A + D + x + y)`` with A pairs certainly concordant, D certainly discordant, and
``0 <= x <= X``, ``0 <= y <= Y`` of the pairs whose order of scores or of times the boxes leave open
(same score bin, same time bin; a tie is half in x, half in y, or in neither if not comparable).
C rises in x and falls in y, hence ``A / (A + D + Y) <= C <= (A + X) / (A + D + X)``.

Pairs left open shrink with the bins: of B equally filled score bins about one pair in B is open, so
the half width is about 1 / (2 B) when times are grid points (and less the more the bins agree).
The cost is that of cumulative sums over the grid, S x 2 (K + 1), not of the pairs.
"""

import math
from dataclasses import dataclass

import numpy as np

from protocol.stats.censoring import CensoringCurve
from protocol.stats.score_table import COLUMNS, ScoreTable
from protocol.stats.sums import FloatArray, IntArray, require

__all__ = ["BoundedConcordance", "auc_at", "harrell_c", "uno_c"]


@dataclass(frozen=True)
class BoundedConcordance:
    """A concordance index known up to an interval.

    Attributes
    ----------
    value : float
        Over the certainly comparable pairs, open scores counting one half; in [0, 1], .5 is
        chance; nan without a possible pair.
    low, high : float
        The index of the exact values of the patients in the table lies in [low, high]; patients of
        withheld hospitals are not among them.
    comparable : float
        Certainly comparable pairs (weighted, where the index is).
    """

    value: float
    low: float
    high: float
    comparable: float

    @property
    def error_bound(self) -> float:
        """Largest possible distance of ``value`` from the index of the exact values."""
        return max(self.high - self.value, self.value - self.low)


@dataclass(frozen=True)
class _Places:
    """Where the patients of each box can be: first and last score bin, first and last order."""

    score: IntArray  # (2, M)
    order: IntArray  # (2, M)
    patients: FloatArray  # (M,)


def harrell_c(table: ScoreTable, *, times_on_grid: bool = False) -> BoundedConcordance:
    """Return Harrell's C over all pairs of patients, across hospitals too.

    Comparable pairs are those of `PairCounts`, events up to and with the end of the grid.

    Parameters
    ----------
    table : ScoreTable
        Sum of the hospitals' tables.
    times_on_grid : bool
        Whether follow-up is recorded on the grid (whole months, say), every time a grid point
        above 0. Then equal bins are equal times and only scores are left open.
    """
    ones = np.ones(len(table.grid_months) - 1)
    return _pairs_in_time(table, ones, times_on_grid)


def uno_c(
    table: ScoreTable, censoring: CensoringCurve, *, times_on_grid: bool = False
) -> BoundedConcordance:
    """Return Uno's C up to the end of the grid: every pair weighs ``1 / G(t_i)^2``.

    Parameters
    ----------
    table : ScoreTable
        Sum of the hospitals' tables.
    censoring : CensoringCurve
        G on the table's grid; the interval holds for this G.
    times_on_grid : bool
        See `harrell_c`.

    References
    ----------
    Uno et al., Stat Med 2011;30:1105, eq. 6.
    """
    require(censoring.grid_months == table.grid_months, "G and the table stand on different grids.")
    return _pairs_in_time(table, censoring.interval_weights**2, times_on_grid)


def auc_at(
    table: ScoreTable, censoring: CensoringCurve, horizon_months: float
) -> BoundedConcordance:
    """Return the cumulative/dynamic AUC at one grid point.

    Cases have the event by the horizon and weigh ``1 / G(t_i)``; controls are event-free at it
    (Uno et al., JASA 2007;102:527; Hung & Chiang, Can J Stat 2010;38:8).

    Raises
    ------
    PayloadError
        If the horizon is not a grid point above 0 or G stands on another grid.
    """
    require(censoring.grid_months == table.grid_months, "G and the table stand on different grids.")
    require(
        horizon_months in table.grid_months[1:],
        f"The horizon {horizon_months:g} is no grid point above 0; choose one of the grid.",
    )
    limit = table.grid_months.index(horizon_months)
    rows = table.boxes.reshape(-1, COLUMNS)
    bins = rows[:, 2:4].T
    # 0 case, 1 control, 2 no case: a case comes before a control and before nothing else.
    cases = np.where(bins < limit, 0, 2)
    controls = np.where(bins >= limit, 1, 0)
    weights = censoring.interval_weights.copy()
    weights[limit:] = weights[limit - 1]
    happened = rows[:, 4] == 1
    events = _Places(rows[happened, :2].T, cases[:, happened], rows[happened, 5].astype(np.float64))
    others = _Places(rows[:, :2].T, controls, rows[:, 5].astype(np.float64))
    return _bounded(events, others, _weight_limits(weights, bins[:, happened]))


def _pairs_in_time(
    table: ScoreTable, weights: FloatArray, times_on_grid: bool
) -> BoundedConcordance:
    rows = table.boxes.reshape(-1, COLUMNS)
    happened = rows[:, 4] == 1
    # Twice the bin leaves room for an order within it: open bins last from 2k to 2k + 1; on the
    # grid an event stands at 2k, before the censorings of the same time at 2k + 1.
    order = 2 * rows[:, 2:4].T
    if times_on_grid:
        order = order + np.where(happened, 0, 1)
    else:
        order = order + np.array([[0], [1]])
    events = _Places(rows[happened, :2].T, order[:, happened], rows[happened, 5].astype(np.float64))
    others = _Places(rows[:, :2].T, order, rows[:, 5].astype(np.float64))
    return _bounded(events, others, _weight_limits(weights, rows[happened, 2:4].T))


def _weight_limits(weights: FloatArray, bins: IntArray) -> tuple[FloatArray, FloatArray]:
    # Weights rise with time until G is 0 and they are; so the ends of a span bound them.
    last = np.minimum(bins, len(weights) - 1)
    low = np.minimum(weights[last[0]], weights[last[1]])
    high = np.where(weights[last[0]] > 0, np.maximum.accumulate(weights)[last[1]], 0.0)
    return low, high


def _bounded(
    events: _Places, others: _Places, weights: tuple[FloatArray, FloatArray]
) -> BoundedConcordance:
    low, high = (events.patients * weight for weight in weights)
    (e_first, e_last), (o_first, o_last) = events.score, others.score
    early, late = events.order
    soon, last = others.order
    concordant = _count(e_first, late, low, o_last, soon, others.patients)
    discordant = _count(-e_last, late, low, -o_first, soon, others.patients)
    # A patient is no pair, and of two events in one open box only one can come first.
    own = float((high * (events.patients + 1) / 2)[early < late].sum())
    maybe_concordant = _count(e_last + 1, early, high, o_first, last, others.patients)
    maybe_discordant = _count(1 - e_first, early, high, -o_last, last, others.patients)
    maybe_concordant, maybe_discordant = maybe_concordant - own, maybe_discordant - own
    if maybe_concordant + discordant <= 0 or concordant + maybe_discordant <= 0:
        return BoundedConcordance(math.nan, math.nan, math.nan, 0.0)
    lowest = concordant / (concordant + maybe_discordant)
    highest = maybe_concordant / (maybe_concordant + discordant)
    zeros, ones = np.zeros(len(o_first), np.int64), np.ones(len(e_first), np.int64)
    comparable = _count(ones, late, high, zeros, soon, others.patients)
    if comparable <= 0:
        return BoundedConcordance((lowest + highest) / 2, lowest, highest, 0.0)
    above = _count(e_first, late, high, o_last, soon, others.patients)
    below = _count(-e_last, late, high, -o_first, soon, others.patients)
    value = (comparable + above - below) / 2 / comparable
    return BoundedConcordance(value, lowest, highest, comparable)


def _count(
    score: IntArray,
    order: IntArray,
    weight: FloatArray,
    other_score: IntArray,
    other_order: IntArray,
    other_patients: FloatArray,
) -> float:
    """Return the weight of pairs whose first member has the earlier order and the higher score."""
    if not len(score) or not len(other_score):
        return 0.0
    floor = int(min(score.min(), other_score.min()))
    rows = int(max(score.max(), other_score.max())) - floor + 1
    columns = int(max(order.max(), other_order.max())) + 1
    table = np.zeros((rows + 1, columns + 1))
    # Shifted by one row and one column, so that the cumulative sums are of strictly lower scores
    # and strictly later orders.
    np.add.at(table, (other_score - floor + 1, other_order), other_patients)
    table = np.cumsum(table, axis=0)
    later = np.cumsum(table[:, ::-1], axis=1)[:, ::-1]
    return float(weight @ later[score - floor, order + 1])
