"""Discrete-time survival by the probability of an event in each interval: PMF and MTLR.

Scores ``s_k`` of the K intervals and a score 0 for surviving the grid pass a softmax. PMF: the
outputs are the scores. MTLR: the scores are sums of the outputs from the interval on, which favours
likely intervals beside each other. Letters: B patients, K intervals.

References
----------
Yu et al., Adv Neural Inf Process Syst 24, 2011, 1845 (MTLR); Kvamme & Borgan, Lifetime Data Anal
2021;27:710, section 3.1.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from shared_models.heads.head import Head, at_least_float32
from shared_models.heads.logistic_hazard import interval_targets
from shared_models.heads.outcomes import checked_hazards
from shared_models.heads.piecewise import linear_mean, linear_median, linear_survival

__all__ = [
    "MTLR",
    "PMF",
    "masses",
    "median_months",
    "mtlr_scores",
    "nll",
    "restricted_mean_months",
    "start_outputs",
    "survival_at",
]


def mtlr_scores(outputs: Tensor) -> Tensor:
    """Return MTLR's scores, (B, K): score k is the sum of outputs k, k+1, ..., K-1."""
    return at_least_float32(outputs).flip(1).cumsum(1).flip(1)


def masses(scores: Tensor) -> Tensor:
    """Return the probability of an event in each interval and, last, of none: (B, K + 1)."""
    return torch.softmax(_with_survivors(scores), dim=1)


def nll(scores: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    """Return the negative log-likelihood of each patient.

    Parameters
    ----------
    scores : Tensor
        (B, K), real.
    targets : mapping
        ``interval`` (B,), -1..K-1: that of the event, or the last one survived; ``event`` (B,).

    Returns
    -------
    Tensor
        (B,), >= 0: ``-ln p_kappa`` with an event, ``-ln sum_k>kappa p_k`` without; lower is better.
    """
    scores = _with_survivors(at_least_float32(scores))
    interval = targets["interval"][:, None]
    index = torch.arange(scores.shape[1], device=scores.device)[None, :]
    # One term for both kinds of patient: the log-sum of the scores that agree with what was seen.
    happened = targets["event"][:, None] > 0
    agrees = torch.where(happened, index == interval, index > interval)
    seen = scores.masked_fill(~agrees, -torch.inf).logsumexp(dim=1)
    return scores.logsumexp(dim=1) - seen


def survival_at(scores: Tensor, cuts_months: Tensor, months: Tensor) -> Tensor:
    """Return S at (M,) times, (B, M), straight inside each interval, level after the last."""
    survival = linear_survival(masses(scores.double()), cuts_months, months)
    return survival.to(at_least_float32(scores).dtype)


def median_months(scores: Tensor, cuts_months: Tensor) -> Tensor:
    """Return the time at which S falls to one half, (B,), months; NaN where it does not."""
    return linear_median(masses(scores.double()), cuts_months).to(at_least_float32(scores).dtype)


def restricted_mean_months(scores: Tensor, cuts_months: Tensor) -> Tensor:
    """Return the mean survival time up to the last cut, (B,), months: the area under S."""
    return linear_mean(masses(scores.double()), cuts_months).to(at_least_float32(scores).dtype)


def start_outputs(hazards: Sequence[float], cuts_months: Sequence[float]) -> tuple[float, ...]:
    """Return the scores of a patient with these hazards: ``ln(p_k / S_K)``."""
    hazards = checked_hazards(hazards, cuts_months)
    survival = math.prod(1 - hazard for hazard in hazards)
    scores, alive = [], 1.0
    for hazard in hazards:
        scores.append(math.log(alive * hazard / survival))
        alive *= 1 - hazard
    return tuple(scores)


def _with_survivors(scores: Tensor) -> Tensor:
    return torch.cat((scores, torch.zeros_like(scores[:, :1])), dim=1)


def _mtlr_nll(outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    return nll(mtlr_scores(outputs), targets)


def _mtlr_survival_at(outputs: Tensor, cuts_months: Tensor, months: Tensor) -> Tensor:
    return survival_at(mtlr_scores(outputs), cuts_months, months)


def _mtlr_median_months(outputs: Tensor, cuts_months: Tensor) -> Tensor:
    return median_months(mtlr_scores(outputs), cuts_months)


def _mtlr_restricted_mean_months(outputs: Tensor, cuts_months: Tensor) -> Tensor:
    return restricted_mean_months(mtlr_scores(outputs), cuts_months)


def _mtlr_start(hazards: Sequence[float], cuts_months: Sequence[float]) -> tuple[float, ...]:
    scores = (*start_outputs(hazards, cuts_months), 0.0)
    return tuple(here - after for here, after in pairwise(scores))


PMF = Head(
    name="pmf",
    num_outputs=lambda num_intervals: num_intervals,
    targets=interval_targets,
    nll=nll,
    survival_at=survival_at,
    median_months=median_months,
    restricted_mean_months=restricted_mean_months,
    start_outputs=start_outputs,
)
"""The outputs are the scores of the intervals."""

MTLR = Head(
    name="mtlr",
    num_outputs=lambda num_intervals: num_intervals,
    targets=interval_targets,
    nll=_mtlr_nll,
    survival_at=_mtlr_survival_at,
    median_months=_mtlr_median_months,
    restricted_mean_months=_mtlr_restricted_mean_months,
    start_outputs=_mtlr_start,
)
"""Multi-task logistic regression: the scores are sums of the outputs."""
