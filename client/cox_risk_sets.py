"""Who is at risk when: one hospital's patients placed on a grid of times, and summed there."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.survival_table import SurvivalTable
from protocol.errors import DataError
from protocol.stats.cells import is_small

__all__ = ["RiskSets", "coarse_blocks", "place"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
# Rows of the at-risk table that are formed at once when patients enter late: bounds the memory.
CHUNK = 256


@dataclass(frozen=True)
class RiskSets:
    """Grid points 0 .. K - 1 at which each of N patients is at risk: first to last, inclusive.

    Attributes
    ----------
    num_points : int
        K.
    first, last : int array (N,)
        ``first > last`` for a patient at risk at no point.
    event : int array (N,)
        Point of the patient's event, -1 without one.
    coarse_months : float
        Longest span over which times were moved together; 0 for none.
    """

    num_points: int
    first: IntArray
    last: IntArray
    event: IntArray
    coarse_months: float = 0.0

    def at_risk(self, values: FloatArray) -> FloatArray:
        """Return the sums of ``values`` (N, Q) over each risk set, (K, Q)."""
        if (self.first > 0).any():
            # Late entries are summed one risk set at a time: a difference of two cumulative sums
            # would leave rounding where the small early risk sets should be.
            return np.concatenate(
                [
                    self._members(start, min(start + CHUNK, self.num_points)) @ values
                    for start in range(0, self.num_points, CHUNK)
                ]
            )
        leaving = self._grouped(values, self.last)
        return np.asarray(np.cumsum(leaving[::-1], axis=0)[::-1])

    def at_event(self, values: FloatArray) -> FloatArray:
        """Return the sums of ``values`` (N, Q) over the events of each point, (K, Q)."""
        return self._grouped(values, self.event)

    def second_moments(self, x: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ``sum weight x x'`` (K, P, P) over each risk set, and over each point's events."""
        risk = np.zeros((self.num_points, x.shape[1], x.shape[1]))
        tied = np.zeros_like(risk)
        late = bool((self.first > 0).any())
        for point in range(self.num_points):
            here = (self.first <= point) & (self.last >= point) if late else self.last == point
            if here.any():
                risk[point] = _moment(x[here], weight[here])
        for point in np.unique(self.event[self.event >= 0]):
            happened = self.event == point
            tied[point] = _moment(x[happened], weight[happened])
        if not late:
            risk = np.cumsum(risk[::-1], axis=0)[::-1]
        return risk, tied

    def _members(self, start: int, stop: int) -> FloatArray:
        points = np.arange(start, stop)[:, None]
        return ((self.first <= points) & (points <= self.last)).astype(np.float64)

    def _grouped(self, values: FloatArray, point: IntArray) -> FloatArray:
        total = np.zeros((self.num_points, values.shape[1]))
        kept = point >= 0
        order = np.argsort(point[kept], kind="stable")
        if len(order):
            present, first = np.unique(point[kept][order], return_index=True)
            total[present] = np.add.reduceat(values[kept][order], first, axis=0)
        return total


def _moment(x: FloatArray, weight: FloatArray) -> FloatArray:
    product = (x * weight[:, None]).T @ x
    return np.asarray((product + product.T) / 2)


def place(table: SurvivalTable, grid_months: FloatArray, min_cell: int = 1) -> RiskSets:
    """Place patients on a grid of times, coarser where few of them come or go.

    An event counts at the next point at or after it; at risk at ``g`` is who ``start < g`` and was
    observed at least until ``g`` or had the event that counts there.

    Parameters
    ----------
    grid_months : float array (K,)
        Increasing times. Whoever goes beyond the last is censored there.
    min_cell : int
        Smallest number of events, of censorings and of late entries on which a change between two
        points may rest; 1 moves nothing.

    Raises
    ------
    DataError
        If events, censorings or late entries are fewer than ``min_cell`` as a whole.
    """
    points = len(grid_months)
    reached = np.searchsorted(grid_months, table.months, side="left")
    happened = table.event & (reached < points)
    # An event belongs to the next point of the grid; a patient censored before that point has
    # left by then, as among exact times.
    stayed = np.searchsorted(grid_months, table.months, side="right") - 1
    first = np.searchsorted(grid_months, table.start_months, side="right")
    last = np.where(happened, reached, stayed)
    seen = first <= last
    first, last = np.where(seen, first, points), np.where(seen, last, -1)
    if min_cell <= 1:
        return RiskSets(points, first, last, np.where(happened, last, -1))
    # Whoever stays beyond the last point counts as censored there, and those at risk from the
    # start are a sum of their own: either could else be had as the difference of two others.
    late, early = seen & (first > 0), seen & (first == 0)
    moves = (last[happened], last[seen & ~happened], first[late], first[early])
    counts = np.stack([np.bincount(move, minlength=points) for move in moves])
    if any(is_small(int(total), min_cell) for total in counts.sum(axis=1)):
        raise DataError(
            f"Events, censored patients or late entries are fewer than this hospital's minimum of "
            f"{min_cell} over the whole grid, so their sums would point at persons; use the "
            "site-stratified regression or lower the hospital's own minimum."
        )
    edges = coarse_blocks(counts, min_cell)
    block = np.searchsorted(edges, np.arange(points), side="right") - 1
    starts, ends = edges[:-1], edges[1:] - 1
    begins = np.concatenate(([0.0], grid_months))
    spans = grid_months[ends] - begins[starts]
    first[seen], last[seen] = starts[block[first[seen]]], ends[block[last[seen]]]
    moved = float(spans[ends > starts].max(initial=0.0))
    return RiskSets(points, first, last, np.where(happened, last, -1), moved)


def coarse_blocks(counts: IntArray, min_cell: int) -> IntArray:
    """Cut a grid into spans in which every kind of count is 0 or at least ``min_cell``.

    Halved on the fixed grid and never walked along the data, whose boundaries would themselves
    tell where a patient stands (as in `protocol.stats.cells`).

    Parameters
    ----------
    counts : int array (R, K)
        R kinds of counts at K points.

    Returns
    -------
    int array (B + 1,)
        The spans' first points in order, then K.
    """
    edges, waiting = [], [(0, counts.shape[1])]
    while waiting:
        start, stop = waiting.pop()
        middle = (start + stop) // 2
        halves = (counts[:, start:middle].sum(axis=1), counts[:, middle:stop].sum(axis=1))
        if middle == start or any(is_small(int(n), min_cell) for half in halves for n in half):
            edges.append(start)
        else:
            # The later half first, so that the earlier one is taken off the pile before it.
            waiting += [(middle, stop), (start, middle)]
    return np.array([*edges, counts.shape[1]], np.int64)
