"""What every survival head is: data and pure functions between a network and its predictions.

Letters: B patients, K intervals of the common grid, O outputs of the network, M times.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from protocol.errors import ConfigError

__all__ = ["Head", "at_least_float32", "require_decomposable"]


@dataclass(frozen=True)
class Head:
    """A survival head.

    Attributes
    ----------
    name : str
        Its key in ``HEADS``.
    num_outputs : callable
        ``num_outputs(num_intervals)`` is O, what the network must give for each patient.
    targets : callable
        ``targets(months, event, cuts_months)`` turns (B,) follow-up times, (B,) events (0 censored,
        1 event; with competing risks the cause) and the (K,) ends of the intervals into named
        arrays of B rows; raises a `DataError` for an outcome that is impossible.
    nll : callable
        ``nll(outputs, targets)`` is the negative log-likelihood of each patient, (B,), lower is
        better. ``targets`` may hold further names. Computed in float32 or, given it, float64.
    survival_at : callable
        ``survival_at(outputs, cuts_months, months)`` is S at the (M,) times, (B, M): 1 at 0, never
        rising. Heads on the grid keep S at its last value beyond the last cut.
    median_months : callable
        ``median_months(outputs, cuts_months)``, (B,): where S falls to one half; NaN where it does
        not by the last cut.
    restricted_mean_months : callable
        ``restricted_mean_months(outputs, cuts_months)``, (B,): the area under S up to the last cut.
    start_outputs : callable
        ``start_outputs(hazards, cuts_months)``: O numbers, the outputs of a patient who has the
        given probability of the event in each interval among those who reach it, for a network to
        start from; raises a `ConfigError` for a hazard outside [0, 1].
    decomposable : bool
        Whether a patient's ``nll`` depends on that patient alone, which per-patient clipping
        (differential privacy) needs and with which federated averaging minimises the pooled loss.
    num_causes : int
        Kinds of event; 1 but for competing risks.
    needs_baseline : bool
        Whether outputs are relative hazards, and curves exist only once
        `shared_models.heads.relative_hazard.with_baseline` has given it a baseline hazard.
    two_phase : bool
        Whether a step of the training needs the sums over all hospitals' risk sets first.
    """

    name: str
    num_outputs: Callable[[int], int]
    targets: Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]
    nll: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
    survival_at: Callable[[Tensor, Tensor, Tensor], Tensor]
    median_months: Callable[[Tensor, Tensor], Tensor]
    restricted_mean_months: Callable[[Tensor, Tensor], Tensor]
    start_outputs: Callable[[Sequence[float], Sequence[float]], tuple[float, ...]]
    decomposable: bool = True
    num_causes: int = 1
    needs_baseline: bool = False
    two_phase: bool = False

    def survival_curve(self, outputs: Tensor, cuts_months: Tensor) -> Tensor:
        """Return S at the end of each interval, (B, K), in [0, 1]."""
        return self.survival_at(outputs, cuts_months, cuts_months)

    def risk(self, outputs: Tensor, cuts_months: Tensor) -> Tensor:
        """Return the probability of an event by the last cut, (B,), in [0, 1]; higher is worse."""
        return 1 - self.survival_at(outputs, cuts_months, cuts_months[-1:]).squeeze(1)


def at_least_float32(values: Tensor) -> Tensor:
    """Return ``values`` in float64 if they are, otherwise in float32 (half precision is raised)."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def require_decomposable(head: Head) -> None:
    """Refuse a head whose loss differential privacy cannot bound.

    Raises
    ------
    ConfigError
        If a patient's loss depends on other patients.
    """
    if not head.decomposable:
        raise ConfigError(
            f"Head '{head.name}' compares patients with each other, so clipping each patient's "
            "gradient does not bound what one patient changes and the privacy guarantee would be "
            "false; choose a head that is a sum over patients, such as 'logistic_hazard'."
        )
