"""Uno's C, Antolini's C_td and AUC(t) of one hospital, as pair sums.

What is counted per pair of patients stays here; `WeightedPairs` is what leaves.
"""

import numpy as np
import numpy.typing as npt

from protocol.errors import PayloadError
from protocol.stats.censoring import CensoringCurve
from protocol.stats.sums import FloatArray, IntArray, require
from protocol.stats.weighted_pairs import WeightedPairs

__all__ = ["antolini_pairs", "auc_pairs", "uno_pairs"]

BoolArray = npt.NDArray[np.bool_]


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
