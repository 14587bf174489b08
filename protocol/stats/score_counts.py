"""The score table as one count a cell of its whole grid: a list of occupied cells does not add."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from protocol.stats.score_table import ScoreTable
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["ScoreCounts"]


@dataclass(frozen=True, eq=False)
class ScoreCounts(Sums):
    """Patients by status, score bin and time bin.

    Attributes
    ----------
    edges, grid_months : tuple of float
        As in `ScoreTable`.
    counts : float array (2, S, K + 1)
        Status (0 censored, 1 event), score, time. Fractions where a hospital's noised table has
        boxes of several cells, whose patients are spread evenly over them.
    withheld : int
    """

    edges: tuple[float, ...]
    grid_months: tuple[float, ...]
    counts: FloatArray
    withheld: int

    def _check(self) -> None:
        shape = (2, len(self.edges) + 1, len(self.grid_months))
        require(self.counts.shape == shape, "ScoreCounts: expected one count a cell.")
        require(bool((self.counts >= 0).all()), "ScoreCounts: a count is negative.")

    @classmethod
    def empty(cls, edges: tuple[float, ...], grid_months: tuple[float, ...]) -> Self:
        """Return the counts of nobody."""
        shape = (2, len(edges) + 1, len(grid_months))
        return cls(tuple(edges), tuple(grid_months), np.zeros(shape), 0)

    def filled(self, table: ScoreTable) -> Self:
        """Return a table's counts.

        Raises
        ------
        PayloadError
            If it is on another grid.
        """
        same = (table.edges, table.grid_months) == (self.edges, self.grid_months)
        require(same, "The score table has another grid than the one that was asked for.")
        counts = np.zeros_like(self.counts)
        for low, high, early, late, status, count in table.boxes.reshape(-1, 6).tolist():
            box = counts[status, low : high + 1, early : late + 1]
            box += count / box.size
        return type(self)(self.edges, self.grid_months, counts, table.withheld)

    def merge(self, other: Self) -> Self:
        """Add two tables on the same grid."""
        same = (self.edges, self.grid_months) == (other.edges, other.grid_months)
        require(same, "Score counts on different grids cannot be added.")
        counts, withheld = self.counts + other.counts, self.withheld + other.withheld
        return type(self)(self.edges, self.grid_months, counts, withheld)

    def table(self) -> ScoreTable:
        """Return the table; fractions are made whole so that running totals are kept."""
        whole = np.diff(np.rint(np.cumsum(self.counts)), prepend=0.0).astype(np.int64)
        at = np.flatnonzero(whole)
        status, score, time = np.unravel_index(at, self.counts.shape)
        boxes = np.stack([score, score, time, time, status, whole[at]], axis=1)
        boxes = boxes[np.lexsort((status, time, score))].astype(np.int64)
        rows = boxes if boxes.size else np.zeros(0, np.int64)
        return ScoreTable(self.edges, self.grid_months, rows, self.withheld)
