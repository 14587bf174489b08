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
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["LifeTable", "SurvivalCurve", "monthly_grid"]

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class SurvivalCurve:
    """Kaplan-Meier of one group at the grid points.

    Attributes
    ----------
    months : float array (K + 1,)
        Grid, from 0.
    survival, lower, upper : float array (K + 1,)
        Probability in [0, 1] and its 95 % limits (Greenwood's variance on the log(-log) scale);
        nan from where nobody is left at risk.
    at_risk : int array (K + 1,)
        Patients still under observation just after each grid point, all patients at 0.
    """

    months: FloatArray
    survival: FloatArray
    lower: FloatArray
    upper: FloatArray
    at_risk: IntArray


@dataclass(frozen=True, eq=False)
class LifeTable(Sums):
    """Events and censorings per interval and group.

    Attributes
    ----------
    grid_months : tuple of float, length K + 1
        Increasing, from 0.
    names : tuple of str, length G
        Groups, e.g. low, middle, high risk.
    events : int array (G, K)
    censored : int array (G, K + 1)
        The last column counts patients still observed at the grid's end, whatever befell them
        later.
    withheld : int array (G,)
        Hospitals that did not send the group because it was small.
    coarse_months : float
        Longest span within which a hospital moved counts together; 0 when nothing was moved.
    """

    grid_months: tuple[float, ...]
    names: tuple[str, ...]
    events: IntArray
    censored: IntArray
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
        require(self.coarse_months >= 0, "LifeTable: coarse_months is never negative.")

    @classmethod
    def empty(cls, grid_months: tuple[float, ...], names: tuple[str, ...]) -> Self:
        """Return the table of no patient."""
        groups, width = len(names), len(grid_months)
        events = np.zeros((groups, width - 1), np.int64)
        censored = np.zeros((groups, width), np.int64)
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
        np.add.at(events, (group[counted], interval[counted]), 1)
        np.add.at(censored, (group[~counted], interval[~counted]), 1)
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
    def num_patients(self) -> IntArray:
        """Patients per group."""
        return np.asarray(self.events.sum(axis=1) + self.censored.sum(axis=1))

    @property
    def at_risk(self) -> IntArray:
        """Patients at risk in each interval, (G, K + 1); the last column is beyond the grid."""
        left = self.censored.copy()
        left[:, :-1] += self.events
        return np.asarray(np.cumsum(left[:, ::-1], axis=1)[:, ::-1])

    def curve(self, group: int) -> SurvivalCurve:
        """Return Kaplan-Meier with Greenwood's limits for one group."""
        at_risk, events = self.at_risk[group], self.events[group]
        exposed = np.maximum(at_risk[:-1], 1)
        survival = np.concatenate([[1.0], np.cumprod(1 - events / exposed)])
        left = exposed - events
        step = np.divide(events, exposed * left, out=np.full(len(events), np.inf), where=left > 0)
        variance = np.concatenate([[0.0], np.cumsum(step)])
        lower, upper = _log_log_limits(survival, variance)
        # Once nobody is at risk the curve is not 0 but unknown, unless it reached 0 by events.
        known = np.concatenate([[True], at_risk[:-1] > 0]) | (survival == 0)
        survival, lower, upper = (
            np.where(known, line, np.nan) for line in (survival, lower, upper)
        )
        return SurvivalCurve(np.asarray(self.grid_months), survival, lower, upper, at_risk)

    def log_rank(self) -> tuple[float, int]:
        """Return the log-rank chi-square over the groups and its degrees of freedom.

        Groups without patients are left out (Mantel 1966; Klein & Moeschberger 2003, eq. 7.3.5).
        The statistic is nan when fewer than two groups remain or no event was seen.
        """
        present = self.num_patients > 0
        events = self.events[present].astype(np.float64)
        at_risk = self.at_risk[present][:, :-1].astype(np.float64)
        groups = len(events)
        if groups < 2 or events.sum() == 0:
            return math.nan, max(groups - 1, 0)
        deaths, exposed = events.sum(axis=0), at_risk.sum(axis=0)
        share = at_risk / np.maximum(exposed, 1)
        excess = (events - deaths * share).sum(axis=1)
        factor = deaths * (exposed - deaths) / np.maximum(exposed - 1, 1)
        covariance = np.diag((factor * share).sum(axis=1)) - (factor * share) @ share.T
        # The pseudo-inverse of the full matrix equals dropping one group, whichever it is.
        return float(excess @ np.linalg.pinv(covariance, hermitian=True) @ excess), groups - 1

    def suppressed(self, min_cell: int) -> Self:
        """Return a table in which every cell counts 0 or at least ``min_cell`` patients.

        Small cells are joined with their neighbours by halving the grid (`cells.blocks`) and their
        content is placed in the middle interval. A group whose events or censorings are small as a
        whole is withheld; if it were the only one, the next smallest group is withheld too, since
        the one could be had from totals. ``coarse_months`` says how far counts may have moved.
        """
        if min_cell <= 1:
            return self
        totals = np.stack([self.events.sum(axis=1), self.censored.sum(axis=1)])
        hidden = np.array(((totals > 0) & (totals < min_cell)).any(axis=0))
        present = self.num_patients > 0
        if hidden.sum() == 1 and (present & ~hidden).any():
            others = np.where(present & ~hidden, self.num_patients, np.iinfo(np.int64).max)
            hidden[int(np.argmin(others))] = True
        events = np.zeros_like(self.events)
        censored = np.zeros_like(self.censored)
        widest = 0.0
        for group in np.flatnonzero(~hidden & present):
            for source, target in ((self.events, events), (self.censored, censored)):
                widest = max(widest, self._join(source[group], target[group], min_cell))
        withheld = self.withheld + hidden
        return type(self)(
            self.grid_months,
            self.names,
            events,
            censored,
            withheld,
            max(widest, self.coarse_months),
        )

    def _join(self, counts: IntArray, target: IntArray, min_cell: int) -> float:
        grid = np.asarray(self.grid_months)
        widest = 0.0
        for (span,) in blocks(counts, min_cell):
            total = int(counts[span].sum())
            if total and span.stop - span.start > 1:
                end = min(span.stop, len(grid) - 1)
                widest = max(widest, float(grid[end] - grid[span.start]))
            target[(span.start + span.stop - 1) // 2] = total
        return widest

    def has_small_cell(self, min_cell: int) -> bool:
        """Whether any cell counts 1 .. ``min_cell`` - 1 patients."""
        cells = (*self.events.ravel(), *self.censored.ravel())
        return any(is_small(int(count), min_cell) for count in cells)


def monthly_grid(horizon_months: float) -> tuple[float, ...]:
    """Return 0, 1, 2 ... months, ending at the horizon exactly."""
    require(0 < horizon_months <= 1200, "A horizon lies above 0 and within 1200 months.")
    whole = [float(month) for month in range(math.ceil(horizon_months))]
    return (*whole, float(horizon_months))


def _log_log_limits(survival: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    inside = (survival > 0) & (survival < 1)
    safe = np.where(inside, survival, 0.5)
    log = np.log(safe)
    half = Z_95 * np.sqrt(np.where(inside, variance, 0.0)) / np.abs(log)
    lower, upper = safe ** np.exp(half), safe ** np.exp(-half)
    return np.where(inside, lower, survival), np.where(inside, upper, survival)
