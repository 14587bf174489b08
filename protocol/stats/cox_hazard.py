"""The hazard table of a Cox fit: what every residual and the baseline are made of.

At grid point k, with D_k tied events of total weight W_k, risk-set sums ``S0, S1`` and the same
sums over the tied events ``T0, T1``, the l-th of the D_k terms (l = 0 .. D_k - 1) has, after Efron
1977, the denominator and mean::

    den_kl = S0_k - (l / D_k) T0_k,   m_kl = (S1_k - (l / D_k) T1_k) / den_kl

each counted with the mean weight W_k / D_k of the tied events; Breslow 1974 is l / D_k := 0.
"""

from dataclasses import dataclass
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt

from protocol.errors import PayloadError
from protocol.stats.cox import MAX_COVARIATES, check_ties
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["CoxHazard", "HazardTerms", "hazard_terms"]


@dataclass(frozen=True)
class HazardTerms:
    """Sums over the tied terms of each grid point.

    Attributes
    ----------
    log_denominator : float
        ``sum_kl (W_k / D_k) ln den_kl``.
    hazard, tied : float array (K,)
        ``sum_l a_kl`` and ``sum_l (l / D_k) a_kl`` with ``a_kl = (W_k / D_k) / den_kl``.
    hazard_x, tied_x : float array (K, P)
        The same sums of ``a_kl m_kl``.
    event_mean : float array (K, P)
        ``(1 / D_k) sum_l m_kl``, what an event's covariates are compared with; 0 without events.
    mean_square : float array (P, P)
        ``sum_kl (W_k / D_k) m_kl m_kl'``.
    """

    log_denominator: float
    hazard: FloatArray
    tied: FloatArray
    hazard_x: FloatArray
    tied_x: FloatArray
    event_mean: FloatArray
    mean_square: FloatArray


def hazard_terms(
    deaths: IntArray,
    weight: FloatArray,
    risk: tuple[FloatArray, FloatArray],
    tied: tuple[FloatArray, FloatArray],
    ties: str,
) -> HazardTerms:
    """Return the terms of every tied event, summed over each grid point.

    Parameters
    ----------
    deaths : int array (K,)
        Events at each point, D_k.
    weight : float array (K,)
        Their case weights summed, W_k.
    risk, tied : pair of float arrays (K,), (K, P)
        S0 and S1 of the risk set, T0 and T1 of the tied events.
    ties : {"breslow", "efron"}

    Raises
    ------
    PayloadError
        If a risk set with an event in it has no weight.
    """
    check_ties(ties)
    point = np.repeat(np.arange(len(deaths)), deaths)
    first = np.cumsum(deaths) - deaths
    count = deaths[point].astype(np.float64)
    share = (np.arange(len(point)) - first[point]) / count if ties == "efron" else 0.0 * count
    denominator = risk[0][point] - share * tied[0][point]
    require(
        bool((denominator > 0).all()),
        "A risk set that holds an event has no weight; the sums do not belong together.",
    )
    mean = (risk[1][point] - share[:, None] * tied[1][point]) / denominator[:, None]
    portion = weight[point] / count
    factor = portion / denominator

    def at_points(values: FloatArray) -> FloatArray:
        total = np.zeros((len(deaths), *values.shape[1:]))
        present = deaths > 0
        if present.any():
            total[present] = np.add.reduceat(values, first[present], axis=0)
        return total

    return HazardTerms(
        log_denominator=float(portion @ np.log(denominator)),
        hazard=at_points(factor),
        tied=at_points(share * factor),
        hazard_x=at_points(factor[:, None] * mean),
        tied_x=at_points((share * factor)[:, None] * mean),
        event_mean=at_points(mean / count[:, None]),
        mean_square=(mean * portion[:, None]).T @ mean,
    )


@dataclass(frozen=True, eq=False)
class CoxHazard(Sums):
    """The pooled hazard table as the centre sends it back to the hospitals.

    A hospital needs it for its own patients' residuals and survival curves. With two hospitals in
    a study each can subtract its own sums from what this table is made of; a study of two says so.

    Attributes
    ----------
    names : tuple of str, length P
    ties : tuple of one str
    grid_months : tuple of float, length K
    beta : float array (P,)
    hazard, tied, hazard_x, tied_x, event_mean : float arrays
        As in `HazardTerms`. ``hazard`` is the increment of the baseline cumulative hazard of a
        patient whose covariates are all 0 (Breslow's estimator; with Efron's ties, Efron's).
    """

    names: tuple[str, ...]
    ties: tuple[str, ...]
    grid_months: tuple[float, ...]
    beta: FloatArray
    hazard: FloatArray
    tied: FloatArray
    hazard_x: FloatArray
    tied_x: FloatArray
    event_mean: FloatArray

    def _check(self) -> None:
        width, points = len(self.names), len(self.grid_months)
        require(1 <= width <= MAX_COVARIATES, "CoxHazard: too few or too many covariates.")
        require(len(self.ties) == 1, "CoxHazard: name one rule for tied events.")
        check_ties(self.ties[0])
        shapes = [
            array.shape
            for array in (
                self.beta,
                self.hazard,
                self.tied,
                self.hazard_x,
                self.tied_x,
                self.event_mean,
            )
        ]
        expected = [(width,), (points,), (points,), *[(points, width)] * 3]
        require(shapes == expected, "CoxHazard: the tables do not match the grid and covariates.")
        require(bool((self.hazard >= 0).all()), "CoxHazard: a hazard is negative.")

    def merge(self, other: Self) -> NoReturn:
        """Refuse: hazards are ratios of sums."""
        raise PayloadError("Hazards cannot be added; add the risk-set sums and divide again.")

    def cumulative(self, months: npt.ArrayLike) -> FloatArray:
        """Return the baseline cumulative hazard at ``months`` (M,); a step function, from 0."""
        steps = np.concatenate(([0.0], np.cumsum(self.hazard)))
        index = np.searchsorted(self.grid_months, np.asarray(months, np.float64), side="right")
        return np.asarray(steps[index])

    def survival(self, x: npt.ArrayLike, months: npt.ArrayLike) -> FloatArray:
        """Return ``S(t | x) = exp(-H0(t) exp(x beta))``, (N, M), for covariates (N, P)."""
        risk = np.exp(np.asarray(x, np.float64).reshape(-1, len(self.beta)) @ self.beta)
        return np.asarray(np.exp(-np.outer(risk, self.cumulative(months))))
