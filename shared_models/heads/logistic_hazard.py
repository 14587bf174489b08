"""Discrete-time survival: one logit of the hazard for each interval of a common grid.

The likelihood is a sum over patients, so federated averaging and per-patient clipping are exact for
it, which they are not for Cox's. Letters: B patients, K intervals; ``cuts_months`` are the K ends
of the intervals, interval k = (cuts[k-1], cuts[k]] with cuts[-1] = 0.

References
----------
Gensheimer & Narasimhan, PeerJ 2019;7:e6257; Kvamme & Borgan, Lifetime Data Anal 2021;27:710.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from shared_models.heads.head import Head, at_least_float32
from shared_models.heads.outcomes import checked_hazards, checked_outcomes
from shared_models.heads.piecewise import (
    exponential_mean,
    exponential_median,
    exponential_survival,
)

__all__ = [
    "HEAD",
    "discretise",
    "interval_targets",
    "median_months",
    "nll",
    "restricted_mean_months",
    "risk_score",
    "start_logits",
    "survival_at",
    "survival_curve",
]


def discretise(
    months: np.ndarray, event: np.ndarray, cuts_months: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Place follow-up times on the grid.

    Parameters
    ----------
    months : ndarray
        (B,) follow-up times, > 0.
    event : ndarray
        (B,) 1 event, 0 censored.
    cuts_months : ndarray
        (K,) interval ends, increasing, > 0.

    Returns
    -------
    interval : ndarray
        (B,) int64: the last interval for which the patient counts as at risk; -1 for none. An event
        falls in the interval that holds it. A censored patient counts for the interval in which
        they left when they saw at least half of it (the actuarial rule, without bias to first
        order); beyond the last cut they are censored there.
    event : ndarray
        (B,) float32; 0 also for events beyond the last cut.

    Raises
    ------
    DataError
        If a time is not positive and finite, an event is neither 0 nor 1, or the cuts do not rise.
    """
    months, event, cuts = checked_outcomes(months, event, cuts_months)
    starts = np.concatenate(([0.0], cuts[:-1]))
    holding = np.minimum(np.searchsorted(cuts, months, side="left"), len(cuts) - 1)
    inside = months <= cuts[-1]
    happened = (event == 1) & inside
    left_early = (event == 0) & (months < (starts[holding] + cuts[holding]) / 2)
    interval = holding - left_early.astype(np.int64)
    return interval.astype(np.int64), happened.astype(np.float32)


def interval_targets(
    months: np.ndarray, event: np.ndarray, cuts_months: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `discretise`'s ``interval`` and ``event`` by name."""
    interval, happened = discretise(months, event, cuts_months)
    return {"interval": interval, "event": happened}


def nll(logits: Tensor, interval: Tensor, event: Tensor) -> Tensor:
    """Return the negative log-likelihood of each patient.

    Parameters
    ----------
    logits : Tensor
        (B, K) logits of the hazards.
    interval : Tensor
        (B,) integer, -1..K-1, from `discretise`.
    event : Tensor
        (B,) 1 event, 0 censored.

    Returns
    -------
    Tensor
        (B,) float32 (float64 from float64 logits), >= 0; lower is better:
        ``-sum_k<kappa ln(1 - h_k)`` and for the last interval kappa ``-ln h`` with an event,
        ``-ln(1 - h)`` without.
    """
    logits = at_least_float32(logits)
    index = torch.arange(logits.shape[1], device=logits.device)
    at_risk = (index[None, :] <= interval[:, None]).to(logits.dtype)
    target = (index[None, :] == interval[:, None]).to(logits.dtype) * event.to(logits.dtype)[
        :, None
    ]
    # -ln(1 - h) = softplus(logit) and -ln h = softplus(logit) - logit: no overflow for any logit.
    return (functional.softplus(logits) * at_risk - logits * target).sum(dim=1)


def survival_curve(logits: Tensor) -> Tensor:
    """Return S at the end of each interval, (B, K), in (0, 1), not increasing in k."""
    return torch.exp(-torch.cumsum(functional.softplus(at_least_float32(logits)), dim=1))


def risk_score(logits: Tensor) -> Tensor:
    """Return the cumulative hazard ``-ln S`` at the end of the grid, (B,), higher is worse."""
    return functional.softplus(at_least_float32(logits)).sum(dim=1)


def survival_at(logits: Tensor, cuts_months: Tensor, months: Tensor) -> Tensor:
    """Return S at given times, with a constant hazard inside each interval.

    Parameters
    ----------
    logits : Tensor
        (B, K).
    cuts_months, months : Tensor
        (K,) interval ends and (M,) times >= 0; beyond the last cut S stays at its last value.

    Returns
    -------
    Tensor
        (B, M).
    """
    survival = exponential_survival(functional.softplus(logits.double()), cuts_months, months)
    return survival.to(at_least_float32(logits).dtype)


def restricted_mean_months(logits: Tensor, cuts_months: Tensor) -> Tensor:
    """Return the mean survival time up to the last cut, (B,), months: the area under S."""
    mean = exponential_mean(functional.softplus(logits.double()), cuts_months)
    return mean.to(at_least_float32(logits).dtype)


def median_months(logits: Tensor, cuts_months: Tensor) -> Tensor:
    """Return the time at which S falls to one half, (B,), months; NaN where it does not."""
    median = exponential_median(functional.softplus(logits.double()), cuts_months)
    return median.to(at_least_float32(logits).dtype)


def _nll(outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    return nll(outputs, targets["interval"], targets["event"])


def start_logits(hazards: Sequence[float], cuts_months: Sequence[float]) -> tuple[float, ...]:
    """Return the logit of each interval's hazard, (K,), from which training starts."""
    usable = checked_hazards(hazards, cuts_months)
    return tuple(math.log(hazard / (1 - hazard)) for hazard in usable)


HEAD = Head(
    name="logistic_hazard",
    num_outputs=lambda num_intervals: num_intervals,
    targets=interval_targets,
    nll=_nll,
    survival_at=survival_at,
    median_months=median_months,
    restricted_mean_months=restricted_mean_months,
    start_outputs=start_logits,
)
"""One logit of the hazard for each interval."""
