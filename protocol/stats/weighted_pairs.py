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
import numpy.typing as npt

from protocol.errors import PayloadError
from protocol.stats.cells import is_small
from protocol.stats.censoring import CensoringCurve
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["WeightedPairs", "antolini_pairs", "auc_pairs", "uno_pairs"]

MEASURES = ("uno", "antolini", "auc")
BoolArray = npt.NDArray[np.bool_]
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
        values = self._replicate_values()
        return float(values.std(ddof=1)) if len(values) > 1 else math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13)."""
        values = self._replicate_values()
        if len(values) < 2:
            return math.nan, math.nan
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

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


def uno_pairs(
    months: npt.ArrayLike,
    event: npt.ArrayLike,
    risk: npt.ArrayLike,
    *,
    tau_months: float,
    censoring: CensoringCurve,
    replicates: int = 0,
    rng: np.random.Generator | None = None,
) -> WeightedPairs:
    """Return one hospital's pairs for Uno's C: weight ``1 / G(t_i)^2`` (Stat Med 2011;30:1105).

    Parameters
    ----------
    months, event, risk : array (N,)
        As in `PairCounts.of`.
    tau_months : float
        Events at or after it count as censored.
    censoring : CensoringCurve
        G of all hospitals.
    replicates, rng : int, Generator
        Bootstrap samples, drawn from a secret of the hospital (see `PairCounts.of`).

    Raises
    ------
    PayloadError
        If lengths differ, a value is not finite, or replicates are asked for without ``rng``.
    """
    time, happened = _outcome(months, event)
    score = np.asarray(risk, np.float64).ravel()
    _same_length(time, score)
    happened = happened & (time < tau_months)
    weight = censoring.weight(time) ** 2
    pairs = _in_time(time, happened)
    return _sums("uno", tau_months, pairs, score[:, None], weight, happened, replicates, rng)


def antolini_pairs(
    months: npt.ArrayLike,
    event: npt.ArrayLike,
    survival: npt.ArrayLike,
    *,
    grid_months: tuple[float, ...],
    tau_months: float,
    replicates: int = 0,
    rng: np.random.Generator | None = None,
) -> WeightedPairs:
    """Return one hospital's pairs for Antolini's C_td, for models whose curves may cross.

    A comparable pair is concordant when ``S(t_i | x_i) < S(t_i | x_j)`` (Antolini et al., Stat Med
    2005;24:3927); equal values count one half, which Antolini's own index counts as 0:
    ``concordant / comparable``.

    Parameters
    ----------
    survival : float array (N, K + 1)
        Predicted S at the grid points, linear in between and constant beyond.
    grid_months : tuple of float, length K + 1
        Increasing.

    Others as in `uno_pairs`.

    Raises
    ------
    PayloadError
        If shapes differ, a value is not finite, or replicates are asked for without ``rng``.
    """
    time, happened = _outcome(months, event)
    curves, grid = np.asarray(survival, np.float64), np.asarray(grid_months, np.float64)
    require(
        curves.shape == (len(time), len(grid)) and bool(np.isfinite(curves).all()),
        "Survival curves need one row a patient and one finite value a grid point.",
    )
    happened = happened & (time < tau_months)
    right = np.clip(np.searchsorted(grid, time, side="left"), 1, len(grid) - 1)
    share = np.clip((time - grid[right - 1]) / (grid[right] - grid[right - 1]), 0, 1)
    # [j, i]: minus the survival of j at the time of i. At a grid point it is the value itself,
    # unrounded, so that ties stay ties.
    at_time = curves[:, right - 1] * (1 - share) + curves[:, right] * share
    pairs, ones = _in_time(time, happened), np.ones(len(time))
    return _sums("antolini", tau_months, pairs, -at_time, ones, happened, replicates, rng)


def auc_pairs(
    months: npt.ArrayLike,
    event: npt.ArrayLike,
    risk: npt.ArrayLike,
    *,
    horizon_months: float,
    censoring: CensoringCurve,
    replicates: int = 0,
    rng: np.random.Generator | None = None,
) -> WeightedPairs:
    """Return one hospital's pairs for the cumulative/dynamic AUC at a horizon.

    Cases have the event by the horizon and weigh ``1 / G(t_i)``, controls are event-free at it
    (Uno et al., JASA 2007;102:527). Patients censored before it stand in no pair.

    Parameters
    ----------
    horizon_months : float
        Months, above 0.

    Others as in `uno_pairs`.

    Raises
    ------
    PayloadError
        If lengths differ, a value is not finite, or replicates are asked for without ``rng``.
    """
    time, happened = _outcome(months, event)
    score = np.asarray(risk, np.float64).ravel()
    _same_length(time, score)
    case, control = happened & (time <= horizon_months), time > horizon_months
    weight = censoring.weight(time)
    pairs = case[:, None] & control[None, :]
    sums = _sums("auc", horizon_months, pairs, score[:, None], weight, case, replicates, rng)
    used = int(case.sum() + control.sum())
    return WeightedPairs(**{**vars(sums), "num_patients": used})


def _outcome(months: npt.ArrayLike, event: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    time = np.asarray(months, np.float64).ravel()
    happened = np.asarray(event).ravel() == 1
    require(time.shape == happened.shape, "Times and events differ in length.")
    require(bool((np.isfinite(time) & (time >= 0)).all()), "A time is negative or not finite.")
    return time, happened


def _same_length(time: FloatArray, score: FloatArray) -> None:
    require(time.shape == score.shape, "Times and risks differ in length.")
    require(bool(np.isfinite(score).all()), "A risk is not finite; leave such patients out.")


def _in_time(time: FloatArray, happened: BoolArray) -> BoolArray:
    tied = (time[:, None] == time[None, :]) & ~happened[None, :]
    return happened[:, None] & ((time[:, None] < time[None, :]) | tied)


def _sums(
    measure: str,
    tau_months: float,
    comparable: BoolArray,
    score: FloatArray,
    weight: FloatArray,
    happened: BoolArray,
    replicates: int,
    rng: np.random.Generator | None,
) -> WeightedPairs:
    """Add up the pairs; score is (N, 1), or (N, N) with [j, i] the score of j at the time of i."""
    if replicates and rng is None:
        raise PayloadError("Bootstrap replicates need a random generator; pass rng.")
    number = len(weight)
    mine = score if score.shape[1] == 1 else np.diagonal(score)[:, None]
    theirs = np.broadcast_to(score.T, (number, number))
    matrices = (comparable & (mine > theirs), comparable & (mine == theirs), comparable)
    used = np.where(happened, weight, 0.0)
    drawn = np.zeros((replicates, 3))
    if replicates and rng is not None and number:
        times = rng.multinomial(number, np.full(number, 1 / number), size=replicates)
        drawn = np.stack([_resampled(matrix, used, times) for matrix in matrices], axis=1)
    concordant, tied, total = (float(used @ matrix.sum(axis=1)) for matrix in matrices)
    return WeightedPairs(
        (measure,),
        float(tau_months),
        number,
        int(happened.sum()),
        int(comparable.sum()),
        concordant,
        tied,
        total,
        drawn,
    )


def _resampled(matrix: BoolArray, weight: FloatArray, times: IntArray) -> FloatArray:
    # Patient i drawn w_i times and j drawn w_j times form w_i w_j pairs.
    drawn = times.astype(np.float64)
    return np.asarray(((drawn * weight) @ matrix.astype(np.float64) * drawn).sum(axis=1))
