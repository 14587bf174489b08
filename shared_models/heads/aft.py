"""Accelerated failure time: a location and a scale of the logarithm of time, in months.

``z = (ln t - mu) / sigma`` has a standard law. Outputs: mu, and r with ``sigma = softplus(r) +
0.05``. Time is continuous and events beyond the last cut of the grid are used. Letters: B patients,
M times.

log-logistic  ln f = z - 2 softplus(z) - ln sigma - ln t     ln S = -softplus(z)
log-normal    ln f = -z^2/2 - ln(sigma t sqrt(2 pi))          ln S = ln Phi(-z)
Weibull       ln f = z - e^z - ln sigma - ln t                ln S = -e^z

The gradient in mu of the log-logistic is within 1/sigma, of the others it has no bound: prefer it
where gradients are clipped.

References
----------
Kalbfleisch & Prentice, The Statistical Analysis of Failure Time Data, 2nd ed., section 2.2.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor
from torch.nn import functional

from shared_models.heads.head import Head, at_least_float32
from shared_models.heads.outcomes import checked_hazards, checked_outcomes

__all__ = [
    "AFT_LOG_LOGISTIC",
    "AFT_LOG_NORMAL",
    "AFT_WEIBULL",
    "SIGMA_FLOOR",
    "location_and_scale",
    "targets",
]

SIGMA_FLOOR = 0.05
# e^z is continued as a straight line from here on, where S = exp(-e^30) is 0 in any precision:
# the likelihood stays finite and still pulls mu up.
_WEIBULL_STRAIGHT = 30.0
# S(e^y) e^y is integrated over y = ln t, in panels no wider than four of the smallest sigma.
_PANELS, _NODES, _DEPTH = 125, 16, 25.0


@dataclass(frozen=True)
class _Law:
    """The standard law of z: ``ln f + ln(sigma t)``, ``ln S``, and the z at which S = p."""

    log_density: Callable[[Tensor], Tensor]
    log_survival: Callable[[Tensor], Tensor]
    quantile: Callable[[float], float]


def targets(
    months: np.ndarray, event: np.ndarray, cuts_months: np.ndarray
) -> dict[str, np.ndarray]:
    """Return ``months`` (B,) float64 and ``event`` (B,) float32, checked; no grid is applied.

    Raises
    ------
    DataError
        If a time is not positive and finite, an event is neither 0 nor 1, or the cuts do not rise.
    """
    time, happened, _ = checked_outcomes(months, event, cuts_months)
    return {"months": time, "event": happened.astype(np.float32)}


def location_and_scale(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mu (ln months) and sigma >= 0.05 of each patient, (B, 1) each."""
    outputs = at_least_float32(outputs)
    return outputs[:, :1], functional.softplus(outputs[:, 1:2]) + SIGMA_FLOOR


def _head(name: str, law: _Law) -> Head:
    """Return the head of one law."""

    def nll(outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        mu, sigma = location_and_scale(outputs)
        # The logarithm before the cast: a day's difference after ten years keeps its digits.
        log_time = targets["months"].log().to(mu.dtype)[:, None]
        z = (log_time - mu) / sigma
        log_density = law.log_density(z) - sigma.log() - log_time
        event = targets["event"].to(mu.dtype)[:, None]
        return -(event * log_density + (1 - event) * law.log_survival(z)).squeeze(1)

    def survival_64(outputs: Tensor, months: Tensor) -> Tensor:
        mu, sigma = location_and_scale(outputs.double())
        return law.log_survival((months.double().log() - mu) / sigma).exp()

    def survival_at(outputs: Tensor, cuts_months: Tensor, months: Tensor) -> Tensor:
        return survival_64(outputs, months).to(at_least_float32(outputs).dtype)

    def median_months(outputs: Tensor, cuts_months: Tensor) -> Tensor:
        mu, sigma = location_and_scale(outputs.double())
        median = (mu + law.quantile(0.5) * sigma).exp().squeeze(1)
        known = torch.where(median <= cuts_months[-1].double(), median, torch.nan)
        return known.to(at_least_float32(outputs).dtype)

    def restricted_mean_months(outputs: Tensor, cuts_months: Tensor) -> Tensor:
        months, weights = _quadrature(float(cuts_months[-1]), outputs.device)
        mean = survival_64(outputs, months) @ weights
        return mean.to(at_least_float32(outputs).dtype)

    def start_outputs(hazards: Sequence[float], cuts_months: Sequence[float]) -> tuple[float, ...]:
        # sigma = 1, and S at the last cut as given.
        usable = checked_hazards(hazards, cuts_months)
        survival = math.prod(1 - hazard for hazard in usable)
        mu = math.log(cuts_months[-1]) - law.quantile(survival)
        return mu, math.log(math.expm1(1 - SIGMA_FLOOR))

    return Head(
        name=name,
        num_outputs=lambda num_intervals: 2,
        targets=targets,
        nll=nll,
        survival_at=survival_at,
        median_months=median_months,
        restricted_mean_months=restricted_mean_months,
        start_outputs=start_outputs,
    )


def _quadrature(end_months: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return times and weights whose weighted sum of S is its area from 0 to ``end_months``."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    width = _DEPTH / _PANELS
    lower = math.log(end_months) - _DEPTH + width * np.arange(_PANELS)
    months = np.exp(lower[:, None] + width * (nodes + 1) / 2).ravel()
    weights = np.tile(weights * width / 2, _PANELS) * months
    return torch.from_numpy(months).to(device), torch.from_numpy(weights).to(device)


def _exp(z: Tensor) -> Tensor:
    """Return e^z, straight beyond 30."""
    return z.clamp(max=_WEIBULL_STRAIGHT).exp() * (1 + (z - _WEIBULL_STRAIGHT).clamp(min=0))


def _log_normal_survival(z: Tensor) -> Tensor:
    """Return ``ln Phi(-z)``; torch's own log_ndtr cannot be vectorised over patients by vmap."""
    body, tail = z.clamp(max=1), z.clamp(min=1)
    log_tail = (torch.special.erfcx(tail / math.sqrt(2)) / 2).log() - tail.square() / 2
    return torch.where(z > 1, log_tail, torch.log1p(-torch.erfc(-body / math.sqrt(2)) / 2))


AFT_LOG_LOGISTIC = _head(
    "aft_log_logistic",
    _Law(
        log_density=lambda z: z - 2 * functional.softplus(z),
        log_survival=lambda z: -functional.softplus(z),
        quantile=lambda survival: math.log(1 / survival - 1),
    ),
)
"""z is logistic: odds of survival are proportional."""

AFT_LOG_NORMAL = _head(
    "aft_log_normal",
    _Law(
        log_density=lambda z: -z.square() / 2 - math.log(2 * math.pi) / 2,
        log_survival=_log_normal_survival,
        quantile=lambda survival: -float(ndtri(survival)),
    ),
)
"""z is normal."""

AFT_WEIBULL = _head(
    "aft_weibull",
    _Law(
        log_density=lambda z: z - _exp(z),
        log_survival=lambda z: -_exp(z),
        quantile=lambda survival: math.log(-math.log(survival)),
    ),
)
"""z has the law of the smallest extreme: hazards are proportional where sigma is shared."""
