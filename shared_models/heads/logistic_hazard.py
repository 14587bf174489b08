"""Discrete-time survival: one logit of the hazard for each interval of a common grid.

The likelihood is a sum over patients, so federated averaging and per-patient clipping are exact for
it, which they are not for Cox's. Letters: B patients, K intervals; ``cuts_months`` are the K ends
of the intervals, interval k = (cuts[k-1], cuts[k]] with cuts[-1] = 0.

References
----------
Gensheimer & Narasimhan, PeerJ 2019;7:e6257; Kvamme & Borgan, Lifetime Data Anal 2021;27:710.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from protocol.errors import DataError

__all__ = [
    "discretise",
    "median_months",
    "nll",
    "restricted_mean_months",
    "risk_score",
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
    months, event = np.asarray(months, np.float64), np.asarray(event)
    cuts = np.asarray(cuts_months, np.float64)
    if not (np.isfinite(months) & (months > 0)).all() or not np.isin(event, (0, 1)).all():
        raise DataError(
            "A follow-up time is not positive and finite, or an event is neither 0 nor 1; keep "
            "only patients with a known outcome."
        )
    starts = np.concatenate(([0.0], cuts[:-1]))
    if not (cuts > starts).all():
        raise DataError(f"The time grid {cuts.tolist()} does not rise from 0; make a new one.")
    holding = np.minimum(np.searchsorted(cuts, months, side="left"), len(cuts) - 1)
    inside = months <= cuts[-1]
    happened = (event == 1) & inside
    left_early = (event == 0) & (months < (starts[holding] + cuts[holding]) / 2)
    interval = holding - left_early.astype(np.int64)
    return interval.astype(np.int64), happened.astype(np.float32)


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
        (B,) float32, >= 0; lower is better: ``-sum_k<kappa ln(1 - h_k)`` and for the last interval
        kappa ``-ln h`` with an event, ``-ln(1 - h)`` without.
    """
    logits = logits.float()
    index = torch.arange(logits.shape[1], device=logits.device)
    at_risk = (index[None, :] <= interval[:, None]).to(logits.dtype)
    target = (index[None, :] == interval[:, None]).to(logits.dtype) * event.float()[:, None]
    # -ln(1 - h) = softplus(logit) and -ln h = softplus(logit) - logit: no overflow for any logit.
    return (functional.softplus(logits) * at_risk - logits * target).sum(dim=1)


def survival_curve(logits: Tensor) -> Tensor:
    """Return S at the end of each interval, (B, K), in (0, 1), not increasing in k."""
    return torch.exp(-torch.cumsum(functional.softplus(logits.float()), dim=1))


def risk_score(logits: Tensor) -> Tensor:
    """Return the cumulative hazard ``-ln S`` at the end of the grid, (B,), higher is worse."""
    return functional.softplus(logits.float()).sum(dim=1)


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
    cuts, months = cuts_months.double(), months.double()
    ends = torch.cat((cuts.new_zeros(1), cuts))
    widths = ends[1:] - ends[:-1]
    share = ((months[:, None] - ends[None, :-1]) / widths).clamp(0, 1)
    hazard = functional.softplus(logits.double())
    return torch.exp(-(hazard @ share.T)).float()


def restricted_mean_months(logits: Tensor, cuts_months: Tensor) -> Tensor:
    """Return the mean survival time up to the last cut, (B,), months: the area under S."""
    cuts = cuts_months.double()
    widths = torch.diff(cuts, prepend=cuts.new_zeros(1))
    hazard = functional.softplus(logits.double()).clamp(min=1e-12)
    end = torch.exp(-torch.cumsum(hazard, dim=1))
    start = torch.cat((torch.ones_like(end[:, :1]), end[:, :-1]), dim=1)
    return (start * widths * -torch.expm1(-hazard) / hazard).sum(dim=1).float()


def median_months(logits: Tensor, cuts_months: Tensor) -> Tensor:
    """Return the time at which S falls to one half, (B,), months; NaN where it does not."""
    cuts = cuts_months.double()
    hazard = functional.softplus(logits.double())
    total = torch.cumsum(hazard, dim=1)
    target = torch.full_like(total[:, :1], float(np.log(2.0)))
    index = torch.searchsorted(total, target).squeeze(1)
    reached = index < total.shape[1]
    index = index.clamp(max=total.shape[1] - 1)[:, None]
    starts = torch.cat((cuts.new_zeros(1), cuts[:-1]))
    share = 1 - (total.gather(1, index) - target) / hazard.gather(1, index)
    months = starts[index] + share * (cuts - starts)[index]
    return torch.where(reached, months.squeeze(1), torch.nan).float()
