"""Cumulative incidence with competing causes, from cause-specific life tables.

Where patients can die of something else, ``1 - Kaplan-Meier`` of one cause overstates its risk. The
Aalen-Johansen estimator counts a cause among those still event-free of every cause:

    F_c(t_k) = sum_{j <= k} S(t_{j-1}) d_cj / n_j,    S = Kaplan-Meier of all causes together.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.kaplan_meier import NOBODY
from protocol.stats.lifetable import LifeTable
from protocol.stats.sums import FloatArray, Sums, require
from protocol.stats.whole_table import suppressed_whole

__all__ = ["CauseTable", "IncidenceCurve"]

CENSORED = "censored"
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class IncidenceCurve:
    """Aalen-Johansen of one cause at the grid points.

    Attributes
    ----------
    months : float array (K + 1,)
        Grid, from 0.
    incidence, lower, upper : float array (K + 1,)
        Probability of an event of this cause by the grid point, in [0, 1], with 95 % limits on the
        log(-log) scale; nan from where nobody is left at risk.
    standard_error : float array (K + 1,)
        Delta method (Dinse & Larson, Biometrika 1986;73:379, eq. 6).
    """

    months: FloatArray
    incidence: FloatArray
    lower: FloatArray
    upper: FloatArray
    standard_error: FloatArray


@dataclass(frozen=True, eq=False)
class CauseTable(Sums):
    """Events per cause and censorings per interval.

    Attributes
    ----------
    table : LifeTable
        One group a cause with its events, and the group ``censored`` with everybody else. The grid
        and what a reader learns are those of `LifeTable`.
    """

    table: LifeTable

    def _check(self) -> None:
        names = self.table.names
        require(
            len(names) >= 2 and names[-1] == CENSORED and len(set(names)) == len(names),
            f"CauseTable: groups are the causes and, last, {CENSORED}.",
        )
        mixed = self.table.events[-1].sum() + self.table.censored[:-1].sum()
        require(float(mixed) == 0, "CauseTable: a cause holds censorings or the censored events.")

    @property
    def causes(self) -> tuple[str, ...]:
        """Names of the causes, from 1."""
        return self.table.names[:-1]

    @classmethod
    def empty(cls, grid_months: tuple[float, ...], causes: tuple[str, ...]) -> Self:
        """Return the table of no patient."""
        return cls(LifeTable.empty(tuple(grid_months), (*causes, CENSORED)))

    @classmethod
    def of(
        cls,
        months: npt.ArrayLike,
        cause: npt.ArrayLike,
        *,
        grid_months: tuple[float, ...],
        causes: tuple[str, ...],
    ) -> Self:
        """Count one hospital's patients.

        Parameters
        ----------
        months : float array (N,)
            Time to the first event or censoring, months, >= 0.
        cause : int array (N,)
            0 censored, c an event of ``causes[c - 1]``.

        Raises
        ------
        PayloadError
            If lengths differ, a time is negative or not finite, or a cause does not exist.
        """
        time, which = np.asarray(months, np.float64).ravel(), np.asarray(cause).ravel()
        require(
            bool(np.isin(which, np.arange(len(causes) + 1)).all()),
            "A cause of an event does not exist; 0 is censored, the causes count from 1.",
        )
        require(time.shape == which.shape, "Times and causes differ in length.")
        happened = (which > 0) & (time <= grid_months[-1])
        group = np.where(happened, which - 1, len(causes))
        names = (*causes, CENSORED)
        return cls(LifeTable.of(time, happened, group, grid_months=tuple(grid_months), names=names))

    def merge(self, other: Self) -> Self:
        """Add two hospitals' tables of the same causes on the same grid."""
        return type(self)(self.table.merge(other.table))

    def curve(self, cause: int) -> IncidenceCurve:
        """Return Aalen-Johansen of ``causes[cause]``."""
        require(0 <= cause < len(self.causes), "There is no such cause; count them from 0.")
        exposed = self.table.at_risk.sum(axis=0)[:-1]
        known = exposed > NOBODY
        safe = np.where(known, exposed, 1.0)
        every, own = self.table.events.sum(axis=0), self.table.events[cause]
        survival = np.concatenate([[1.0], np.cumprod(np.clip(1 - every / safe, 0, 1))])
        before = survival[:-1]
        incidence = np.cumsum(before * own / safe)
        variance = _delta_variance(incidence, before, every, own, safe)
        reached = np.concatenate([[True], known]) | (survival < NOBODY)
        values = np.concatenate([[0.0], incidence])
        error = np.sqrt(np.concatenate([[0.0], np.maximum(variance, 0)]))
        lower, upper = _limits(values, error)
        lines = [np.where(reached, line, np.nan) for line in (values, lower, upper, error)]
        return IncidenceCurve(np.asarray(self.table.grid_months), *lines)

    def suppressed(self, min_cell: int) -> Self:
        """Return a table without small cells, or nothing where a cause or the censored are few.

        One cause without the others would leave their patients out of the risk set.
        """
        return type(self)(suppressed_whole(self.table, min_cell))


def _delta_variance(
    incidence: FloatArray, before: FloatArray, every: FloatArray, own: FloatArray, n: FloatArray
) -> FloatArray:
    left = n - every
    all_causes = np.zeros_like(n)
    np.divide(every, n * left, out=all_causes, where=left > NOBODY)
    rest = np.tril(incidence[:, None] - incidence[None, :])  # F(t_k) - F(t_j), j <= k
    this_cause = np.cumsum((n - own) / n * own / n**2 * before**2)
    return np.asarray(rest**2 @ all_causes + this_cause - 2 * rest @ (own * before / n**2))


def _limits(value: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
    inside = (value > 0) & (value < 1)
    safe = np.where(inside, value, 0.5)
    half = Z_95 * error / (safe * np.abs(np.log(safe)))
    lower, upper = safe ** np.exp(half), safe ** np.exp(-half)
    return np.where(inside, lower, value), np.where(inside, upper, value)
