"""Score x time x status: the table from which the centre counts pairs across hospitals.

A concordance index over all patients needs pairs whose members sit in different hospitals. Instead
of times and scores, every hospital sends how many of its patients fall in each cell of a common
grid of score bins and months, and the centre bounds the index from the sum of the tables
(`protocol.stats.table_concordance`).

What a reader learns is, per cell that the hospital publishes, the number of patients whose score
and month lie in it. After `ScoreTable.suppressed` this is never 1 .. k-1. A life table of the same
patients is another partition of them, and the overlay of two partitions is finer than either: take
`ScoreTable.life_table` instead of asking for both.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.boxes import occupied_boxes
from protocol.stats.cells import is_small
from protocol.stats.histogram import Histogram, risk_group
from protocol.stats.lifetable import LifeTable
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["MAX_SCORE_BINS", "MAX_TIME_BINS", "ScoreTable", "score_edges"]

MAX_SCORE_BINS = 1000
MAX_TIME_BINS = 120
COLUMNS = 6


@dataclass(frozen=True, eq=False)
class ScoreTable(Sums):
    """Patients by score, time and status, listed where there are any.

    Attributes
    ----------
    edges : tuple of float, length S - 1
        Increasing inner cut points of the score, common to all hospitals; a score equal to a cut
        point falls above it. A higher score means that an earlier event is expected.
    grid_months : tuple of float, length K + 1
        Increasing, from 0. Time bin k holds ``grid[k] < t <= grid[k + 1]`` (bin 0 also t = 0), bin
        K what lies beyond the horizon, where everybody counts as event-free.
    boxes : int array (M, 6)
        First and last score bin, first and last time bin, status (1 event, 0 censored), patients;
        sorted, each box once. First and last differ only after `suppressed`.
    withheld : int
        Hospitals that sent no box because they have too few patients, events or censorings.
    """

    edges: tuple[float, ...]
    grid_months: tuple[float, ...]
    boxes: IntArray
    withheld: int

    def _check(self) -> None:
        edges, grid = np.asarray(self.edges), np.asarray(self.grid_months)
        require(
            len(edges) < MAX_SCORE_BINS and bool((np.diff(edges) > 0).all()),
            f"ScoreTable: the score's cut points must rise, at most {MAX_SCORE_BINS - 1} of them.",
        )
        require(
            2 <= len(grid) <= MAX_TIME_BINS + 1
            and grid[0] == 0
            and bool((np.diff(grid) > 0).all()),
            f"ScoreTable: the grid must rise from 0 over 1 to {MAX_TIME_BINS} intervals.",
        )
        require(
            self.boxes.size == 0 or (self.boxes.ndim == 2 and self.boxes.shape[1] == COLUMNS),
            "ScoreTable: every box holds two score bins, two time bins, a status and a count.",
        )
        score_0, score_1, time_0, time_1, status, count = self._columns
        inside = (score_0 >= 0) & (score_0 <= score_1) & (score_1 <= len(edges))
        inside &= (time_0 >= 0) & (time_0 <= time_1) & (time_1 < len(grid) - status)
        inside &= ((status == 0) | (status == 1)) & (count > 0)
        require(bool(inside.all()), "ScoreTable: a box lies outside the grid or holds nobody.")
        rising = bool((np.diff(_keys(self.boxes.reshape(-1, COLUMNS))) > 0).all())
        require(rising, "ScoreTable: boxes must be sorted, each listed once.")

    @property
    def _columns(self) -> IntArray:
        return self.boxes.reshape(-1, COLUMNS).T

    @classmethod
    def empty(cls, edges: tuple[float, ...], grid_months: tuple[float, ...]) -> Self:
        """Return the table of no patient."""
        return cls(tuple(edges), tuple(grid_months), np.zeros(0, np.int64), 0)

    @classmethod
    def of(
        cls,
        months: npt.ArrayLike,
        event: npt.ArrayLike,
        score: npt.ArrayLike,
        *,
        edges: tuple[float, ...],
        grid_months: tuple[float, ...],
    ) -> Self:
        """Count one hospital's patients.

        Parameters
        ----------
        months : float array (N,)
            Time to event or censoring, months, >= 0.
        event : int or bool array (N,)
            1 event, 0 censored.
        score : float array (N,)
            Higher means an earlier event is expected.

        Raises
        ------
        PayloadError
            If lengths differ or a value is not finite or a time negative.
        """
        time, risk = (np.asarray(values, np.float64).ravel() for values in (months, score))
        happened = np.asarray(event).ravel() == 1
        require(
            time.shape == happened.shape == risk.shape, "Times, events and scores differ in length."
        )
        finite = bool((np.isfinite(time) & (time >= 0) & np.isfinite(risk)).all())
        require(finite, "A time or score is negative or not finite; leave such patients out.")
        bins = risk_group(risk, tuple(edges)).astype(np.int64)
        interval = np.maximum(np.searchsorted(np.asarray(grid_months), time, side="left") - 1, 0)
        status = happened & (time <= grid_months[-1])
        rows = np.column_stack([bins, bins, interval, interval, status, np.ones(len(time))])
        boxes = _canonical(rows.astype(np.int64))
        return cls(tuple(edges), tuple(grid_months), boxes, 0)

    def merge(self, other: Self) -> Self:
        """Add the boxes of two hospitals with the same cut points and grid."""
        same = (self.edges, self.grid_months) == (other.edges, other.grid_months)
        require(same, "Score tables with different cut points or grids cannot be added.")
        rows = np.concatenate([part.boxes.reshape(-1, COLUMNS) for part in (self, other)])
        withheld = self.withheld + other.withheld
        return type(self)(self.edges, self.grid_months, _canonical(rows), withheld)

    @property
    def num_patients(self) -> int:
        """Patients in the table."""
        return int(self._columns[5].sum())

    @property
    def num_events(self) -> int:
        """Events up to the horizon."""
        return int(self._columns[5] @ self._columns[4])

    def life_table(self) -> LifeTable:
        """Return the life table of all patients; boxes longer than a bin are spread evenly."""
        blank = LifeTable.empty(self.grid_months, ("all",))
        table = (blank.censored.copy(), blank.events.copy())
        grid = np.asarray((*self.grid_months, self.grid_months[-1]))
        coarse = 0.0
        for _, _, first, last, status, count in self.boxes.reshape(-1, COLUMNS).tolist():
            table[status][0, first : last + 1] += count / (last + 1 - first)
            if last > first:
                coarse = max(coarse, float(grid[last + 1] - grid[first]))
        withheld = np.array([self.withheld])
        return LifeTable(self.grid_months, ("all",), table[1], table[0], withheld, coarse)

    def suppressed(self, min_cell: int) -> Self:
        """Return a table whose boxes hold at least ``min_cell`` patients of one hospital.

        Events and censorings are coarsened apart, by halving the grid of score and time bins
        (`protocol.stats.boxes`); a box then says that its patients are somewhere in it, and the
        bounds of `table_concordance` take every place in it as possible. A hospital with 1 ..
        ``min_cell`` - 1 events or censorings in all is withheld. The price is wide bounds: in a
        simulation of 10 hospitals with 1,000 patients each, half of them with an event, the bound
        on C was .0006 at 1, .16 at 5 and .22 at 10; with 200 patients each .0007, .33 and .45.
        Then the pairs within hospitals (`PairCounts`) say more.

        Raises
        ------
        PayloadError
            If the table is coarse already: each hospital coarsens its own, before it is merged.
        """
        if min_cell <= 1 or not self.boxes.size:
            return self
        columns = self._columns
        fine = bool((columns[0] == columns[1]).all() and (columns[2] == columns[3]).all())
        require(fine, "ScoreTable: only a hospital's own table of single cells can be coarsened.")
        parts = [columns[:, columns[4] == status] for status in (0, 1)]
        if any(is_small(int(part[5].sum()), min_cell) for part in parts):
            return type(self)(self.edges, self.grid_months, np.zeros(0, np.int64), 1)
        shape = (len(self.edges) + 1, len(self.grid_months))
        rows = []
        for status, part in enumerate(parts):
            found = occupied_boxes(part[[0, 2]].T, part[5], shape, min_cell)
            found[:, 3] = np.minimum(found[:, 3], shape[1] - 1 - status)  # no event beyond the end
            rows.append(np.insert(found, 4, status, axis=1))
        boxes = _canonical(np.concatenate(rows))
        return type(self)(self.edges, self.grid_months, boxes, self.withheld)


def _canonical(rows: IntArray) -> IntArray:
    """Sort the boxes and add the counts of equal ones, so that equal tables have equal bytes."""
    rows = rows.reshape(-1, COLUMNS)
    if not len(rows):
        return np.zeros(0, np.int64)
    _, first, inverse = np.unique(_keys(rows), return_index=True, return_inverse=True)
    result = rows[first].copy()
    result[:, -1] = 0
    np.add.at(result[:, -1], inverse.ravel(), rows[:, -1])
    return result


def _keys(rows: IntArray) -> IntArray:
    """Return one number a box, so that boxes sort by score, then time, then status."""
    times = MAX_TIME_BINS + 1
    keys = (rows[:, 0] * MAX_SCORE_BINS + rows[:, 1]) * times + rows[:, 2]
    return np.asarray((keys * times + rows[:, 3]) * 2 + rows[:, 4], np.int64)


def score_edges(histogram: Histogram, num_bins: int) -> tuple[float, ...]:
    """Return at most ``num_bins`` - 1 cut points of bins with equally many patients each.

    Parameters
    ----------
    histogram : Histogram
        Sum of the hospitals' histograms of the score.
    num_bins : int
        1 .. 1000. With B such bins about one pair in B shares a bin, whatever the distribution.
    """
    require(1 <= num_bins <= MAX_SCORE_BINS, f"Ask for 1 to {MAX_SCORE_BINS} score bins.")
    values: FloatArray = np.unique(np.asarray(histogram.cuts(num_bins)))
    return tuple(float(value) for value in values)
