"""Cox heads: outputs are log relative hazards, and a curve exists once there is a baseline hazard.

The network gives ``f(x)``, or with Cox-Time ``f_k(x)`` for each interval k of the study's grid. The
likelihood compares patients with each other and knows no level: after training, the hospitals' sums
over risk sets give Breslow's baseline ``dH0(g) = d(g) / S0(g)``, ``S0(g)`` the sum of ``e^f`` over
those at risk, and `with_baseline` makes of the head one that predicts. It is one baseline for all
hospitals, also where each had its own in training, so that a hospital that never trained has one.
Letters: B patients, K intervals, G points of the baseline, M times.

References
----------
Cox, J R Stat Soc B 1972;34:187; Breslow, Biometrics 1974;30:89; Kvamme, Borgan & Scheel, J Mach
Learn Res 2019;20(129).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from protocol.errors import ConfigError
from shared_models.heads.cox import event_terms
from shared_models.heads.cox_time import interval_terms
from shared_models.heads.head import Head, at_least_float32
from shared_models.heads.outcomes import checked_outcomes
from shared_models.heads.piecewise import (
    exponential_mean,
    exponential_median,
    exponential_survival,
)

__all__ = [
    "COX_STRATIFIED",
    "COX_TIME",
    "COX_TWO_PHASE",
    "at_grid",
    "with_baseline",
]

# Of a hazard so large that nobody survives it; beyond, sums would overflow.
MAX_LOG_HAZARD = 50.0


def at_grid(outputs: Tensor, cuts_months: Sequence[float], grid_months: Sequence[float]) -> Tensor:
    """Return f at the points of a grid, (B, G), or (B,) where it does not depend on time.

    Parameters
    ----------
    outputs : Tensor
        (B, 1) or (B, K).
    cuts_months : sequence of float
        The K ends of the study's intervals; a time beyond the last is in the last.
    grid_months : sequence of float
        G times, > 0.
    """
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    interval = np.searchsorted(np.asarray(cuts_months), np.asarray(grid_months), side="left")
    at = torch.from_numpy(np.minimum(interval, len(cuts_months) - 1)).to(outputs.device)
    return outputs[:, at]


def with_baseline(head: Head, grid_months: Sequence[float], hazard: Sequence[float]) -> Head:
    """Return the head with a baseline hazard, which predicts.

    Parameters
    ----------
    head : Head
        One of this module.
    grid_months : sequence of float
        G times, increasing from above 0.
    hazard : sequence of float
        Increments of the cumulative baseline hazard at them, >= 0. Between two points it rises
        evenly, so that at the points the curve is Breslow's.

    Raises
    ------
    ConfigError
        If the grid does not rise or the increments do not belong to it.
    """
    grid, steps = np.asarray(grid_months, np.float64), np.asarray(hazard, np.float64)
    rises = grid.ndim == 1 and len(grid) > 0 and bool((np.diff(grid, prepend=0.0) > 0).all())
    if not rises or steps.shape != grid.shape or not (np.isfinite(steps) & (steps >= 0)).all():
        raise ConfigError(
            f"The baseline hazard of head '{head.name}' has {len(steps)} increments for "
            f"{len(grid)} times, or one is negative; take it from the hospitals' risk sets."
        )
    points, log_steps = torch.from_numpy(grid), torch.from_numpy(steps).log()

    def hazards(outputs: Tensor, cuts_months: Tensor) -> Tensor:
        score = at_grid(outputs.double().cpu(), cuts_months.tolist(), grid.tolist())
        score = score[:, None] if score.ndim == 1 else score
        return (score + log_steps).clamp(max=MAX_LOG_HAZARD).exp()

    def survival_at(outputs: Tensor, cuts_months: Tensor, months: Tensor) -> Tensor:
        survival = exponential_survival(hazards(outputs, cuts_months), points, months.cpu())
        return survival.to(at_least_float32(outputs))

    def median_months(outputs: Tensor, cuts_months: Tensor) -> Tensor:
        median = exponential_median(hazards(outputs, cuts_months), points)
        return median.to(at_least_float32(outputs))

    def restricted_mean_months(outputs: Tensor, cuts_months: Tensor) -> Tensor:
        mean = exponential_mean(hazards(outputs, cuts_months), points)
        return mean.to(at_least_float32(outputs))

    return replace(
        head,
        survival_at=survival_at,
        median_months=median_months,
        restricted_mean_months=restricted_mean_months,
        needs_baseline=False,
    )


def _targets(
    months: np.ndarray, event: np.ndarray, cuts_months: np.ndarray
) -> dict[str, np.ndarray]:
    """Return ``months``, ``event`` and ``interval``, (B,) each; beyond the last cut censored there.

    Raises
    ------
    DataError
        If a time is not positive and finite, an event is neither 0 nor 1, or the cuts do not rise.
    """
    time, happened, cuts = checked_outcomes(months, event, cuts_months)
    inside = np.minimum(time, cuts[-1])
    return {
        "months": inside,
        "event": ((happened == 1) & (time <= cuts[-1])).astype(np.float32),
        "interval": np.searchsorted(cuts, inside, side="left").astype(np.int64),
    }


def _nll(outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    return event_terms(at_least_float32(outputs)[:, 0], targets["months"], targets["event"])


def _nll_in_time(outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    return interval_terms(
        at_least_float32(outputs), targets["interval"], targets["months"], targets["event"]
    )


def _unknown(*_: object) -> NoReturn:
    raise ConfigError(
        "A Cox head has no baseline hazard before the hospitals' risk sets are added up; train the "
        "prognosis stage first."
    )


def _zeros(number: Callable[[int], int]) -> Callable[..., tuple[float, ...]]:
    # The level is the baseline's: a network starts from equal risks.
    return lambda hazards, cuts_months: (0.0,) * number(len(hazards))


def _head(name: str, *, in_time: bool = False, two_phase: bool = False) -> Head:
    def number(num_intervals: int) -> int:
        return num_intervals if in_time else 1

    return Head(
        name=name,
        num_outputs=number,
        targets=_targets,
        nll=_nll_in_time if in_time else _nll,
        survival_at=_unknown,
        median_months=_unknown,
        restricted_mean_months=_unknown,
        start_outputs=_zeros(number),
        decomposable=False,
        needs_baseline=True,
        two_phase=two_phase,
    )


COX_STRATIFIED = _head("cox_stratified")
"""Cox's partial likelihood of each hospital's own patients, Efron's ties."""

COX_TIME = _head("cox_time", in_time=True)
"""Cox-Time on the study's grid: a relative hazard for each interval, full risk sets."""

COX_TWO_PHASE = _head("cox_two_phase", two_phase=True)
"""Cox's partial likelihood of all hospitals' patients together, Breslow's ties on a common grid."""
