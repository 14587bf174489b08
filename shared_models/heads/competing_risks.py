"""Competing risks in discrete time: cause-specific hazards by a softmax in each interval.

In each interval a patient who reached it has an event of cause 1..C or none. The likelihood is a
sum over patients. Treating the other causes as censoring instead would overstate every absolute
risk. Letters: B patients, K intervals, C causes, M times; ``event`` is 0 censored, 1..C the cause.

References
----------
Tutz & Schmid, Modeling Discrete Time-to-Event Data, Springer 2016, chapter 8.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from protocol.errors import ConfigError
from shared_models.heads.head import Head, at_least_float32
from shared_models.heads.logistic_hazard import discretise
from shared_models.heads.outcomes import checked_hazards, checked_outcomes
from shared_models.heads.piecewise import (
    exponential_mean,
    exponential_median,
    exponential_survival,
    interval_shares,
)

__all__ = ["HEAD", "MAX_CAUSES", "competing_risks", "incidence_at"]

MAX_CAUSES = 10


def incidence_at(outputs: Tensor, cuts_months: Tensor, months: Tensor, num_causes: int) -> Tensor:
    """Return the cumulative incidence of each cause.

    Parameters
    ----------
    outputs : Tensor
        (B, K C), the causes of the first interval first.
    cuts_months, months : Tensor
        (K,) interval ends and (M,) times >= 0; level after the last cut.
    num_causes : int
        C.

    Returns
    -------
    Tensor
        (B, C, M), in [0, 1]: ``CIF_c(t) = sum_k S(k-1) h_ck / h_k (1 - exp(-eta_k u_k(t)))`` with
        ``eta_k = -ln(1 - h_k)`` and the share ``u_k`` of interval k that has passed; with S it
        adds to 1.
    """
    scores = _by_interval(outputs.double(), num_causes)
    hazard = _hazard(scores)
    shares = interval_shares(cuts_months, months)
    before = torch.exp(hazard - hazard.cumsum(dim=1))
    gone = before[:, :, None] * -torch.expm1(-hazard[:, :, None] * shares.T)
    incidence = torch.softmax(scores, dim=2).transpose(1, 2) @ gone
    return incidence.to(at_least_float32(outputs).dtype)


def competing_risks(num_causes: int) -> Head:
    """Return the head for a number of causes.

    Its S is that of an event of any cause, its ``risk`` their sum; ask `incidence_at` for one.

    Raises
    ------
    ConfigError
        If there is not at least one cause, or more than `MAX_CAUSES`.
    """
    if not 1 <= num_causes <= MAX_CAUSES:
        raise ConfigError(
            f"Competing risks have {num_causes} causes; give a number from 1 to {MAX_CAUSES}."
        )

    def targets(
        months: np.ndarray, event: np.ndarray, cuts_months: np.ndarray
    ) -> dict[str, np.ndarray]:
        time, cause, cuts = checked_outcomes(months, event, cuts_months, num_causes=num_causes)
        interval, happened = discretise(time, (cause > 0).astype(np.int64), cuts)
        return {"interval": interval, "event": np.where(happened > 0, cause, 0).astype(np.int64)}

    def nll(outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        scores = _by_interval(at_least_float32(outputs), num_causes)
        interval = targets["interval"][:, None]
        index = torch.arange(scores.shape[1], device=scores.device)[None, :]
        causes = torch.arange(1, num_causes + 1, device=scores.device)
        at_risk = (index <= interval).to(scores.dtype)
        # Censored patients have cause 0, which no column matches.
        own = (index == interval)[:, :, None] & (targets["event"][:, None, None] == causes)
        survived = (_hazard(scores) * at_risk).sum(dim=1)
        return survived - (scores * own.to(scores.dtype)).sum(dim=(1, 2))

    def hazard_64(outputs: Tensor) -> Tensor:
        return _hazard(_by_interval(outputs.double(), num_causes))

    def survival_at(outputs: Tensor, cuts_months: Tensor, months: Tensor) -> Tensor:
        survival = exponential_survival(hazard_64(outputs), cuts_months, months)
        return survival.to(at_least_float32(outputs).dtype)

    def median_months(outputs: Tensor, cuts_months: Tensor) -> Tensor:
        median = exponential_median(hazard_64(outputs), cuts_months)
        return median.to(at_least_float32(outputs).dtype)

    def restricted_mean_months(outputs: Tensor, cuts_months: Tensor) -> Tensor:
        mean = exponential_mean(hazard_64(outputs), cuts_months)
        return mean.to(at_least_float32(outputs).dtype)

    def start_outputs(hazards: Sequence[float], cuts_months: Sequence[float]) -> tuple[float, ...]:
        usable = checked_hazards(hazards, cuts_months)
        scores = [math.log(hazard / (1 - hazard) / num_causes) for hazard in usable]
        return tuple(score for score in scores for _ in range(num_causes))

    return Head(
        name="competing_risks",
        num_outputs=lambda num_intervals: num_intervals * num_causes,
        targets=targets,
        nll=nll,
        survival_at=survival_at,
        median_months=median_months,
        restricted_mean_months=restricted_mean_months,
        start_outputs=start_outputs,
        num_causes=num_causes,
    )


def _by_interval(outputs: Tensor, num_causes: int) -> Tensor:
    return outputs.unflatten(1, (-1, num_causes))


def _hazard(scores: Tensor) -> Tensor:
    """Return ``eta_k = ln(1 + sum_c e^score_kc)``, (B, K): the cumulative hazard of all causes."""
    return torch.logsumexp(torch.cat((torch.zeros_like(scores[..., :1]), scores), dim=-1), dim=-1)


HEAD = competing_risks(2)
"""Two causes, such as sudden cardiac and other death."""
