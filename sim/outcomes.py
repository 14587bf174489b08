"""A known hazard, and the concordance no model can honestly exceed.

``lambda_i(t) = lambda_s k t^(k-1) exp(eta_i)`` with t in years, eta the patient's log risk and
lambda_s the hospital's baseline (its frailty included).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.config import OutcomeConfig

__all__ = ["Outcome", "baseline_rate", "cumulative_hazard", "draw_outcome", "expected_concordance"]

MONTHS_PER_YEAR = 12.0
#: Log hazard ratio of the competing death per unit of eta.
COMPETING_SLOPE = 0.4


@dataclass(frozen=True)
class Outcome:
    """Follow-up in months, and whether it ended with the event (1) or was censored (0)."""

    months: float
    event: int


def baseline_rate(config: OutcomeConfig, log_frailty: float) -> float:
    """Return lambda_s, 1/year^k.

    ``rate / exp(s^2/2)`` keeps the mean rate whatever the spread s of a Gaussian eta.
    """
    variance = config.eta_image_sd**2 + config.eta_covariate_sd**2
    return float(config.annual_event_rate * np.exp(log_frailty - variance / 2))


def cumulative_hazard(config: OutcomeConfig, rate: float, months: float) -> float:
    """Return the baseline's cumulative hazard H0 at ``months``."""
    return float(rate * (months / MONTHS_PER_YEAR) ** config.shape)


def draw_outcome(
    config: OutcomeConfig, rate: float, eta: float, rng: np.random.Generator
) -> Outcome:
    """Draw event, competing death and administrative end; what comes first is recorded."""
    uniform = rng.random(2)
    event = (-np.log1p(-uniform[0]) / (rate * np.exp(eta))) ** (1 / config.shape)
    end = rng.uniform(*config.follow_up_years)
    if config.competing_rate > 0:
        hazard = config.competing_rate * np.exp(COMPETING_SLOPE * eta)
        end = min(end, -np.log1p(-uniform[1]) / hazard)
    # A hospital writes a tenth of a month; nobody is followed for none.
    months = max(round(float(min(event, end)) * MONTHS_PER_YEAR, 1), 0.1)
    return Outcome(months, int(event <= end))


def expected_concordance(
    eta: ArrayLike, cumulative_hazard_tau: ArrayLike, score: ArrayLike | None = None
) -> float:
    """Return the expected concordance up to tau of a score, under proportional hazards.

    A pair is comparable if the first of its two events falls before tau: weight
    ``w = 1 - exp(-(H_i + H_j))`` with ``H = H0(tau) exp(eta)``; it is concordant with probability
    ``H_first / (H_i + H_j)`` for the member that the score ranks higher, and 1/2 for equal scores.
    The oracle is ``score = eta``.

    Parameters
    ----------
    eta : array_like
        (N,) log risks.
    cumulative_hazard_tau : array_like
        H0(tau), scalar, or (N,) where hospitals differ.
    score : array_like, optional
        (N,) any score, higher is worse; by default each patient's own total hazard.

    Returns
    -------
    float
        In [0, 1], higher is better; NaN for fewer than two patients.

    References
    ----------
    Exact for two independent exponential times on the hazard's own time scale: the minimum is
    exponential with the summed rate and independent of which of the two it is.
    """
    hazard: NDArray[np.float64] = np.exp(np.asarray(eta, float)) * np.asarray(
        cumulative_hazard_tau, float
    )
    ranking = hazard if score is None else np.asarray(score, float)
    first, second = np.triu_indices(len(hazard), k=1)
    if len(first) == 0:
        return float("nan")
    total = hazard[first] + hazard[second]
    weight = -np.expm1(-total)
    order = np.sign(ranking[first] - ranking[second])
    # 1/2 + order/2 (H_i - H_j)/total is H_i/total, H_j/total or 1/2.
    concordant = 0.5 + 0.5 * order * (hazard[first] - hazard[second]) / total
    return float((weight * concordant).sum() / weight.sum())
