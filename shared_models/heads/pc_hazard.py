"""Continuous time with a hazard that is constant inside each interval of a common grid.

Each output is the inverse softplus of the cumulative hazard ``eta_k`` of its whole interval, so the
predictions are those of the discrete-time head with the same outputs; only the likelihood differs:
it uses where in the interval a patient left. Letters: B patients, K intervals.

References
----------
Kvamme & Borgan, Lifetime Data Anal 2021;27:710, section 3.2.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from shared_models.heads.head import Head, at_least_float32
from shared_models.heads.logistic_hazard import (
    median_months,
    restricted_mean_months,
    start_logits,
    survival_at,
)
from shared_models.heads.outcomes import checked_outcomes

__all__ = ["HEAD", "log_softplus", "nll", "targets"]

# Below this, ln softplus(x) = x - e^x / 2 to the last bit of a double.
_LOW = -20.0


def targets(
    months: np.ndarray, event: np.ndarray, cuts_months: np.ndarray
) -> dict[str, np.ndarray]:
    """Place follow-up times on the grid, keeping how much of the last interval was seen.

    Returns
    -------
    dict
        ``interval`` (B,) int64, 0..K-1: the interval that holds the time; ``fraction`` (B,)
        float64 in (0, 1]: the share of it that was seen; ``event`` (B,) float32. Beyond the last
        cut: censored at it.

    Raises
    ------
    DataError
        If a time is not positive and finite, an event is neither 0 nor 1, or the cuts do not rise.
    """
    time, happened, cuts = checked_outcomes(months, event, cuts_months)
    starts = np.concatenate(([0.0], cuts[:-1]))
    interval = np.minimum(np.searchsorted(cuts, time, side="left"), len(cuts) - 1)
    fraction = np.minimum((time - starts[interval]) / (cuts - starts)[interval], 1.0)
    counted = (happened == 1) & (time <= cuts[-1])
    return {
        "interval": interval.astype(np.int64),
        "fraction": fraction,
        "event": counted.astype(np.float32),
    }


def log_softplus(values: Tensor) -> Tensor:
    """Return ``ln ln(1 + e^x)``, finite with a finite gradient for every finite x."""
    # Both branches see only what they can bear: the unused one still passes a gradient, times 0.
    low = values.clamp(max=_LOW)
    high = functional.softplus(values.clamp(min=_LOW)).log()
    return torch.where(values < _LOW, low - low.exp() / 2, high)


def nll(outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    """Return the negative log-likelihood of each patient.

    Parameters
    ----------
    outputs : Tensor
        (B, K), real.
    targets : mapping
        From `targets`.

    Returns
    -------
    Tensor
        (B,): ``-d ln eta_kappa + fraction eta_kappa + sum_k<kappa eta_k``; lower is better. The
        density is that of time counted in widths of the interval, so it may fall below 0; for a
        density a month add ``d ln(width)``, which no weight of a network changes.
    """
    outputs = at_least_float32(outputs)
    interval = targets["interval"][:, None]
    index = torch.arange(outputs.shape[1], device=outputs.device)[None, :]
    last = (index == interval).to(outputs.dtype)
    seen = (index < interval).to(outputs.dtype) + last * targets["fraction"].to(outputs.dtype)[
        :, None
    ]
    event = last * targets["event"].to(outputs.dtype)[:, None]
    return (functional.softplus(outputs) * seen - log_softplus(outputs) * event).sum(dim=1)


HEAD = Head(
    name="pc_hazard",
    num_outputs=lambda num_intervals: num_intervals,
    targets=targets,
    nll=nll,
    survival_at=survival_at,
    median_months=median_months,
    restricted_mean_months=restricted_mean_months,
    # softplus(x) = -ln(1 - h) is solved by the logit of h.
    start_outputs=start_logits,
)
"""A constant hazard inside each interval, from exact times."""
