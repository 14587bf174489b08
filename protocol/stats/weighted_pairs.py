"""Pairs within hospitals whose weight or score depends on time: Uno, Antolini, AUC(t).

The sums of `PairCounts` with a weight a pair. Each index is a quotient of two sums over ordered
pairs (i, j) of one hospital's patients, i with the event, so the pooled figure is the quotient of
the hospitals' totals. A reader learns these totals and, from the spread of the bootstrap rows, how
much they vary; neither a time nor a score.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from protocol.stats.cells import is_small
from protocol.stats.resamples import percentile_interval, replicate_error
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["WeightedPairs"]

MEASURES = ("uno", "antolini", "auc")
SLACK = 1e-9  # three sums of the same weights are rounded apart


@dataclass(frozen=True, eq=False)
class WeightedPairs(Sums):
    """Weights of concordant, tied and comparable pairs, with bootstrap replicates.

    Attributes
    ----------
    measure : tuple of str, length 1
        ``uno``, ``antolini`` or ``auc``.
    tau_months : float
        Truncation of the first two (events at or after it count as censored), horizon of the last.
    num_patients, num_events : int
        Patients who can stand in a pair, and those with an event before tau (by the horizon).
    num_pairs : int
        Comparable pairs, unweighted.
    concordant, tied, comparable : float
        Sums of weights.
    replicates : float array (B, 3)
        The three sums for patients drawn with replacement within the hospital, G held as it is.
    """

    measure: tuple[str, ...]
    tau_months: float
    num_patients: int
    num_events: int
    num_pairs: int
    concordant: float
    tied: float
    comparable: float
    replicates: FloatArray

    def _check(self) -> None:
        require(
            len(self.measure) == 1 and self.measure[0] in MEASURES,
            f"WeightedPairs: the measure must be one of {', '.join(MEASURES)}.",
        )
        require(self.tau_months > 0, "WeightedPairs: tau must be above 0 months.")
        require(
            self.replicates.size == 0
            or (self.replicates.ndim == 2 and self.replicates.shape[1] == 3),
            "WeightedPairs: every replicate holds concordant, tied and comparable weights.",
        )
        own = np.array([[self.concordant, self.tied, self.comparable]])
        rows = np.concatenate([own, self.replicates.reshape(-1, 3)])
        possible = bool((rows >= 0).all()) and self.num_events <= self.num_patients
        possible &= bool((rows[:, 0] + rows[:, 1] <= rows[:, 2] * (1 + SLACK)).all())
        require(possible, "WeightedPairs: more concordant and tied than comparable pairs.")

    @classmethod
    def empty(cls, measure: str, tau_months: float, replicates: int = 0) -> Self:
        """Return the sums of no patient."""
        blank = np.zeros((replicates, 3))
        return cls((measure,), float(tau_months), 0, 0, 0, 0.0, 0.0, 0.0, blank)

    def merge(self, other: Self) -> Self:
        """Add the pairs of two hospitals; measure, tau and number of replicates must agree."""
        same = (self.measure, self.tau_months) == (other.measure, other.tau_months)
        same &= len(self.replicates) == len(other.replicates)
        require(same, "Pairs of different measures, tau or numbers of replicates cannot be added.")
        return type(self)(
            self.measure,
            self.tau_months,
            self.num_patients + other.num_patients,
            self.num_events + other.num_events,
            self.num_pairs + other.num_pairs,
            self.concordant + other.concordant,
            self.tied + other.tied,
            self.comparable + other.comparable,
            self.replicates.reshape(-1, 3) + other.replicates.reshape(-1, 3),
        )

    @property
    def value(self) -> float:
        """(concordant + tied / 2) / comparable, in [0, 1], .5 is chance; nan without a pair."""
        if self.comparable <= 0:
            return math.nan
        return (self.concordant + self.tied / 2) / self.comparable

    @property
    def standard_error(self) -> float:
        """Standard deviation of the bootstrap replicates; nan below two usable ones."""
        return replicate_error(self._replicate_values())

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13)."""
        return percentile_interval(self._replicate_values(), level)

    def _replicate_values(self) -> FloatArray:
        rows = self.replicates.reshape(-1, 3)
        rows = rows[rows[:, 2] > 0]
        return np.asarray((rows[:, 0] + rows[:, 1] / 2) / rows[:, 2])

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing where patients, events or patients without event are too few."""
        small = min(self.num_patients, self.num_events) < min_cell
        if small or is_small(self.num_patients - self.num_events, min_cell):
            return type(self).empty(self.measure[0], self.tau_months, len(self.replicates))
        return self
