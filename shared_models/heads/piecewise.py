"""Survival curves that a grid determines: exponential or straight inside each interval.

Letters: B patients, K intervals, M times; ``cuts_months`` are the K ends of the intervals, the
first starts at 0. All functions compute and return float64.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "exponential_mean",
    "exponential_median",
    "exponential_survival",
    "interval_shares",
    "linear_mean",
    "linear_median",
    "linear_survival",
]


def interval_shares(cuts_months: Tensor, months: Tensor) -> Tensor:
    """Return the share of each interval that has passed, (M, K), in [0, 1]."""
    cuts, months = cuts_months.double(), months.double()
    ends = torch.cat((cuts.new_zeros(1), cuts))
    widths = ends[1:] - ends[:-1]
    return ((months[:, None] - ends[None, :-1]) / widths).clamp(0, 1)


def exponential_survival(hazard: Tensor, cuts_months: Tensor, months: Tensor) -> Tensor:
    """Return S at given times where each interval has a constant hazard.

    Parameters
    ----------
    hazard : Tensor
        (B, K) float64 cumulative hazard of each whole interval, >= 0.
    cuts_months, months : Tensor
        (K,) interval ends and (M,) times >= 0; beyond the last cut S stays at its last value.

    Returns
    -------
    Tensor
        (B, M).
    """
    return torch.exp(-(hazard @ interval_shares(cuts_months, months).T))


def exponential_mean(hazard: Tensor, cuts_months: Tensor) -> Tensor:
    """Return the area under S up to the last cut, (B,), months."""
    cuts = cuts_months.double()
    widths = torch.diff(cuts, prepend=cuts.new_zeros(1))
    hazard = hazard.clamp(min=1e-12)
    end = torch.exp(-torch.cumsum(hazard, dim=1))
    start = torch.cat((torch.ones_like(end[:, :1]), end[:, :-1]), dim=1)
    return (start * widths * -torch.expm1(-hazard) / hazard).sum(dim=1)


def exponential_median(hazard: Tensor, cuts_months: Tensor) -> Tensor:
    """Return where S falls to one half, (B,), months; NaN where it does not."""
    return _crossing(hazard, math.log(2.0), cuts_months)


def linear_survival(masses: Tensor, cuts_months: Tensor, months: Tensor) -> Tensor:
    """Return S at given times where events are spread evenly over each interval.

    Parameters
    ----------
    masses : Tensor
        (B, K + 1) float64 probability of an event in each interval and, last, of none; sum 1.
    cuts_months, months : Tensor
        (K,) interval ends and (M,) times >= 0; beyond the last cut S stays at its last value.

    Returns
    -------
    Tensor
        (B, M).
    """
    # A sum of what is left and not 1 minus what has gone: a small S keeps its digits.
    left = 1 - interval_shares(cuts_months, months)
    return (masses[:, -1:] + masses[:, :-1] @ left.T).clamp(max=1)


def linear_mean(masses: Tensor, cuts_months: Tensor) -> Tensor:
    """Return the area under S up to the last cut, (B,), months: events fall in mid-interval."""
    cuts = cuts_months.double()
    middles = cuts - torch.diff(cuts, prepend=cuts.new_zeros(1)) / 2
    return masses[:, :-1] @ middles + masses[:, -1] * cuts[-1]


def linear_median(masses: Tensor, cuts_months: Tensor) -> Tensor:
    """Return where S falls to one half, (B,), months; NaN where it does not."""
    return _crossing(masses[:, :-1], 0.5, cuts_months)


def _crossing(steps: Tensor, level: float, cuts_months: Tensor) -> Tensor:
    """Return where the running sum of (B, K) ``steps``, straight in between, reaches ``level``."""
    cuts = cuts_months.double()
    total = torch.cumsum(steps, dim=1)
    target = torch.full_like(total[:, :1], level)
    index = torch.searchsorted(total, target).squeeze(1)
    reached = index < total.shape[1]
    index = index.clamp(max=total.shape[1] - 1)[:, None]
    starts = torch.cat((cuts.new_zeros(1), cuts[:-1]))
    share = 1 - (total.gather(1, index) - target) / steps.gather(1, index)
    months = starts[index] + share * (cuts - starts)[index]
    return torch.where(reached, months.squeeze(1), torch.nan)
