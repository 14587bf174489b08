"""Harrell's concordance as pair counts within hospitals.

Pairs across hospitals would need patients' times to meet in one place. The pooled index is
therefore the concordance of pairs *within* hospitals, every pair counting the same.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.errors import PayloadError
from protocol.stats.resamples import percentile_interval, replicate_error
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["PairCounts"]

ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class PairCounts(Sums):
    """Concordant, tied and comparable pairs, with bootstrap replicates.

    A pair is comparable when the earlier of the two times is an event before ``tau_months``, or
    when both times are equal and one is such an event and the other is not. It is concordant when
    the patient with the earlier event has the higher risk (Harrell et al. 1996). Two events at one
    time are not comparable.

    Attributes
    ----------
    tau_months : float
        Truncation; events at or after it count as censored (the index depends on it: state it).
    num_patients, num_events : int
        Patients, and events before tau.
    concordant, tied, comparable : int
        Pairs; tied means equal risk.
    replicates : int array (B, 3)
        Concordant, tied, comparable of bootstrap samples: patients drawn with replacement within
        the hospital. Row b of the sum over hospitals is one sample stratified by hospital.
    """

    tau_months: float
    num_patients: int
    num_events: int
    concordant: int
    tied: int
    comparable: int
    replicates: IntArray

    def _check(self) -> None:
        require(self.tau_months > 0, "PairCounts: tau must be above 0 months.")
        require(
            self.replicates.size == 0
            or (self.replicates.ndim == 2 and self.replicates.shape[1] == 3),
            "PairCounts: every replicate holds concordant, tied and comparable pairs.",
        )
        possible = self.concordant + self.tied <= self.comparable
        possible &= self.num_events <= self.num_patients
        rows = self.replicates.reshape(-1, 3)
        possible &= bool((rows[:, 0] + rows[:, 1] <= rows[:, 2]).all())
        require(possible, "PairCounts: more concordant and tied than comparable pairs.")

    @classmethod
    def empty(cls, tau_months: float, replicates: int = 0) -> Self:
        """Return the counts of no patient."""
        return cls(float(tau_months), 0, 0, 0, 0, 0, np.zeros((replicates, 3), np.int64))

    @classmethod
    def of(
        cls,
        months: npt.ArrayLike,
        event: npt.ArrayLike,
        risk: npt.ArrayLike,
        *,
        tau_months: float,
        replicates: int = 0,
        rng: np.random.Generator | None = None,
    ) -> Self:
        """Count the pairs of one hospital.

        Parameters
        ----------
        months : float array (N,)
            Time to event or censoring, months, >= 0.
        event : int or bool array (N,)
            1 event, 0 censored.
        risk : float array (N,)
            Higher means an earlier event is expected.
        tau_months : float
            Truncation, months.
        replicates : int
            Bootstrap samples; needs ``rng``. Where real patients are counted the generator must be
            seeded from a secret of the hospital: to one who knows the draws every row is a linear
            equation in the pairs, and 200 rows give away each pair of 12 patients exactly.

        Raises
        ------
        PayloadError
            If lengths differ, a value is not finite, or replicates are asked for without ``rng``.
        """
        time, score = (np.asarray(values, np.float64).ravel() for values in (months, risk))
        happened = np.asarray(event).ravel() == 1
        require(
            time.shape == happened.shape == score.shape, "Times, events and risks differ in length."
        )
        finite = bool(np.isfinite(time).all() and np.isfinite(score).all())
        require(finite, "A time or risk is not finite; leave patients without outcome out.")
        happened &= time < tau_months
        concordant, tied, comparable = _pair_matrices(time, happened, score)
        if replicates and rng is None:
            raise PayloadError("Bootstrap replicates need a random generator; pass rng.")
        drawn = np.zeros((replicates, 3), np.int64)
        if replicates and rng is not None and len(time):
            times = rng.multinomial(len(time), np.full(len(time), 1 / len(time)), size=replicates)
            drawn = np.stack(
                [_weighted(matrix, times) for matrix in (concordant, tied, comparable)], axis=1
            )
        return cls(
            float(tau_months),
            len(time),
            int(happened.sum()),
            int(concordant.sum()),
            int(tied.sum()),
            int(comparable.sum()),
            drawn,
        )

    def merge(self, other: Self) -> Self:
        """Add the pairs of two hospitals; tau and the number of replicates must agree."""
        same = self.tau_months == other.tau_months and len(self.replicates) == len(other.replicates)
        require(same, "Pair counts of different tau or numbers of replicates cannot be added.")
        return type(self)(
            self.tau_months,
            self.num_patients + other.num_patients,
            self.num_events + other.num_events,
            self.concordant + other.concordant,
            self.tied + other.tied,
            self.comparable + other.comparable,
            self.replicates + other.replicates,
        )

    @property
    def c_index(self) -> float:
        """(concordant + tied / 2) / comparable, in [0, 1], .5 is chance; nan without a pair."""
        return (self.concordant + self.tied / 2) / self.comparable if self.comparable else math.nan

    @property
    def standard_error(self) -> float:
        """Standard deviation of the bootstrap replicates; nan below two usable ones."""
        return replicate_error(self._replicate_values())

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13)."""
        return percentile_interval(self._replicate_values(), level)

    def _replicate_values(self) -> FloatArray:
        rows = self.replicates.reshape(-1, 3)
        rows = rows[rows[:, 2] > 0].astype(np.float64)
        return (rows[:, 0] + rows[:, 1] / 2) / rows[:, 2]

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing where patients or events are fewer than ``min_cell``."""
        if min(self.num_patients, self.num_events) < min_cell:
            return type(self).empty(self.tau_months, len(self.replicates))
        return self


def _pair_matrices(
    time: FloatArray, happened: npt.NDArray[np.bool_], risk: FloatArray
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    # [i, j]: i has the event, j outlives i or is censored at the same time.
    later = (time[:, None] < time[None, :]) | (
        (time[:, None] == time[None, :]) & ~happened[None, :]
    )
    comparable = happened[:, None] & later
    concordant = comparable & (risk[:, None] > risk[None, :])
    tied = comparable & (risk[:, None] == risk[None, :])
    return concordant, tied, comparable


def _weighted(matrix: npt.NDArray[np.bool_], times: IntArray) -> IntArray:
    # Patient i drawn w_i times and j drawn w_j times form w_i w_j pairs, so w' M w counts exactly
    # the pairs of the resampled hospital. Doubles hold these whole numbers exactly (below 2^53).
    weights = times.astype(np.float64)
    total = np.zeros(len(times))
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        total += ((weights @ matrix[rows].T.astype(np.float64)) * weights[:, rows]).sum(axis=1)
    return np.rint(total).astype(np.int64)
