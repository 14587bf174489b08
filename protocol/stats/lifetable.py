"""Life tables on a common grid: Kaplan-Meier and log-rank from counts that hospitals can add.

Exact times stay at the hospital. A time ``t`` with ``grid[k] < t <= grid[k + 1]`` is counted in
interval k and treated as if it lay at the interval's end, so the curve is Kaplan-Meier's of the
times rounded up to the grid.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.cells import blocks, is_small
from protocol.stats.kaplan_meier import NOBODY, SurvivalCurve, kaplan_meier
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["LifeTable", "monthly_grid"]


@dataclass(frozen=True, eq=False)
class LifeTable(Sums):
    """Events and censorings per interval and group.

    Attributes
    ----------
    grid_months : tuple of float, length K + 1
        Increasing, from 0.
    names : tuple of str, length G
        Groups, e.g. low, middle, high risk.
    events : float array (G, K)
        Whole numbers; fractions after `suppressed`, as in ``censored``.
    censored : float array (G, K + 1)
        The last column counts patients still observed at the grid's end, whatever befell them
        later.
    withheld : int array (G,)
        Hospitals that did not send the group because it was small.
    coarse_months : float
        Longest span within which a hospital moved counts together; 0 when nothing was moved.
    """

    grid_months: tuple[float, ...]
    names: tuple[str, ...]
    events: FloatArray
    censored: FloatArray
    withheld: IntArray
    coarse_months: float

    def _check(self) -> None:
        grid = np.asarray(self.grid_months)
        rising = len(grid) >= 2 and grid[0] == 0 and bool((np.diff(grid) > 0).all())
        require(rising, "LifeTable: the grid must rise from 0 over at least one interval.")
        groups, intervals = len(self.names), len(grid) - 1
        require(
            self.events.shape == (groups, intervals)
            and self.censored.shape == (groups, intervals + 1)
            and self.withheld.shape == (groups,),
            "LifeTable: the tables do not have one row a group and one column an interval.",
        )
        counts = bool((self.events >= 0).all() and (self.censored >= 0).all())
        require(counts and self.coarse_months >= 0, "LifeTable: a count is negative.")

    @classmethod
    def empty(cls, grid_months: tuple[float, ...], names: tuple[str, ...]) -> Self:
        """Return the table of no patient."""
        groups, width = len(names), len(grid_months)
        events, censored = np.zeros((groups, width - 1)), np.zeros((groups, width))
        withheld = np.zeros(groups, np.int64)
        return cls(tuple(grid_months), tuple(names), events, censored, withheld, 0.0)

    @classmethod
    def of(
        cls,
        months: npt.ArrayLike,
        event: npt.ArrayLike,
        groups: npt.ArrayLike,
        *,
        grid_months: tuple[float, ...],
        names: tuple[str, ...],
    ) -> Self:
        """Count one hospital's patients.

        Parameters
        ----------
        months : float array (N,)
            Time to event or censoring, months, >= 0.
        event : int or bool array (N,)
            1 event, 0 censored.
        groups : int array (N,)
            Index into ``names``.

        Raises
        ------
        PayloadError
            If lengths differ, a time is negative or not finite, or a group does not exist.
        """
        time = np.asarray(months, dtype=np.float64).ravel()
        happened = np.asarray(event).ravel() == 1
        group = np.asarray(groups, dtype=np.int64).ravel()
        require(
            time.shape == happened.shape == group.shape,
            "Times, events and groups differ in length.",
        )
        require(bool((np.isfinite(time) & (time >= 0)).all()), "A time is negative or not finite.")
        require(
            bool(((group >= 0) & (group < len(names))).all()), "A patient's group does not exist."
        )
        table = cls.empty(grid_months, names)
        events, censored = table.events.copy(), table.censored.copy()
        interval = np.maximum(np.searchsorted(np.asarray(grid_months), time, side="left") - 1, 0)
        counted = happened & (time <= grid_months[-1])
        np.add.at(events, (group[counted], interval[counted]), 1.0)
        np.add.at(censored, (group[~counted], interval[~counted]), 1.0)
        return cls(table.grid_months, table.names, events, censored, table.withheld, 0.0)

    def merge(self, other: Self) -> Self:
        """Add the counts of two hospitals on the same grid and groups."""
        same = (self.grid_months, self.names) == (other.grid_months, other.names)
        require(same, "Life tables on different grids or groups cannot be added.")
        return type(self)(
            self.grid_months,
            self.names,
            self.events + other.events,
            self.censored + other.censored,
            self.withheld + other.withheld,
            max(self.coarse_months, other.coarse_months),
        )

    @property
    def num_patients(self) -> FloatArray:
        """Patients per group."""
        return np.asarray(self.events.sum(axis=1) + self.censored.sum(axis=1))

    @property
    def at_risk(self) -> FloatArray:
        """Patients at risk per interval, (G, K + 1); the last column is beyond the grid."""
        left = self.censored.copy()
        left[:, :-1] += self.events
        return np.asarray(np.cumsum(left[:, ::-1], axis=1)[:, ::-1])

    def curve(self, group: int) -> SurvivalCurve:
        """Return Kaplan-Meier with Greenwood's limits for one group."""
        return kaplan_meier(self.grid_months, self.events[group], self.at_risk[group])

    def log_rank(self) -> tuple[float, int]:
        """Return the log-rank chi-square over the groups and its degrees of freedom.

        Groups without patients are left out (Mantel 1966; Klein & Moeschberger 2003, eq. 7.3.5).
        The statistic is nan when fewer than two groups remain or no event was seen.
        """
        present = self.num_patients > 0
        events, at_risk = self.events[present], self.at_risk[present][:, :-1]
        groups = len(events)
        if groups < 2 or events.sum() == 0:
            return math.nan, max(groups - 1, 0)
        deaths, exposed = events.sum(axis=0), at_risk.sum(axis=0)
        share = at_risk / np.where(exposed > NOBODY, exposed, 1.0)
        excess = (events - deaths * share).sum(axis=1)
        factor = deaths * (exposed - deaths) / np.maximum(exposed - 1, 1)
        covariance = np.diag((factor * share).sum(axis=1)) - (factor * share) @ share.T
        # The pseudo-inverse of the full matrix equals dropping one group, whichever it is.
        return float(excess @ np.linalg.pinv(covariance, hermitian=True) @ excess), groups - 1

    def suppressed(self, min_cell: int, *, complementary: bool = True) -> Self:
        """Return a table from which no count of 1 .. ``min_cell`` - 1 patients can be read.

        Small cells are joined with their neighbours by halving the grid and their content is spread
        evenly over the joined span; ``coarse_months`` is the longest such span. A
        group whose events or censorings are small as a whole is withheld.

        Parameters
        ----------
        min_cell : int
            Smallest publishable count; 1 leaves the table as it is.
        complementary : bool
            Withhold the next smallest group too where only one would be, since the one could be had
            as total minus the others. False only where no exact total of these patients is sent.
        """
        if min_cell <= 1:
            return self
        totals = np.stack([self.events.sum(axis=1), self.censored.sum(axis=1)])
        hidden = np.array(((totals > 0) & (totals < min_cell)).any(axis=0))
        visible = (self.num_patients > 0) & ~hidden
        if complementary and hidden.sum() == 1 and visible.any():
            hidden[int(np.argmin(np.where(visible, self.num_patients, np.inf)))] = True
        events, censored = np.zeros_like(self.events), np.zeros_like(self.censored)
        widest = self.coarse_months
        for group in np.flatnonzero(~hidden):
            for source, target in ((self.events, events), (self.censored, censored)):
                target[group], span = self._coarser(source[group], min_cell)
                widest = max(widest, span)
        withheld = self.withheld + hidden
        return type(self)(self.grid_months, self.names, events, censored, withheld, widest)

    def _coarser(self, row: FloatArray, min_cell: int) -> tuple[FloatArray, float]:
        """Return a row without small cells, and the longest span it was spread over, months."""
        counts = np.rint(row).astype(np.int64)
        grid = (*self.grid_months, self.grid_months[-1])
        intervals = len(self.grid_months) - 1
        inside, end = int(counts[:intervals].sum()), int(counts[intervals:].sum())
        if is_small(inside, min_cell) or is_small(end, min_cell):
            parts = [(0, counts)]
        else:
            # Most patients are often still observed at the grid's end. Spread over the last months
            # they would look lost to follow-up, so the end is a cell of its own where it may be.
            parts = [(0, counts[:intervals]), (intervals, counts[intervals:])]
        result, widest = np.zeros(len(row)), 0.0
        for first, part in parts:
            for (span,) in blocks(part, min_cell) if len(part) else []:
                total, width = float(part[span].sum()), span.stop - span.start
                start, stop = first + span.start, first + span.stop
                result[start:stop] = total / width
                if total and width > 1:
                    widest = max(widest, grid[stop] - grid[start])
                    if stop > intervals:  # joined with the end: half of it there
                        result[start:intervals] = total / 2 / (width - 1)
                        result[intervals] = total / 2
        return result, widest


def monthly_grid(horizon_months: float) -> tuple[float, ...]:
    """Return 0, 1, 2 ... months, ending at the horizon exactly."""
    require(0 < horizon_months <= 1200, "A horizon lies above 0 and within 1200 months.")
    whole = [float(month) for month in range(math.ceil(horizon_months))]
    return (*whole, float(horizon_months))
