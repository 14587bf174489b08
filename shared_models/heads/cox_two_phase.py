"""The pooled Cox likelihood across hospitals, exactly, from sums over risk sets.

With one baseline hazard for all, an event at one hospital is compared with patients of the others.
A step needs two exchanges: (a) each hospital sends its sums over risk sets without gradient, the
centre adds them; (b) each hospital takes the gradient of `surrogate_nll`, whose sum over hospitals
is the gradient of the pooled partial likelihood (Breslow's ties). It holds for one step; after
local steps the sums are stale and the gradient is an approximation.

On a grid: an event counts at the first grid point not before it; a censored patient is at risk up
to the last grid point not after they left; who is followed beyond the grid is censored at its end.
With every event time on the grid this is the exact pooled likelihood.

What a reader of one hospital's sums learns: between two grid points the sum of ``e^f`` over those
who left, the number of them and of events. `RiskSetSums.require_cells` refuses where that is a sum
over few. But each round tells the same sums at other weights, and enough of them would determine a
small group's covariates: take few rounds, a coarse grid, or secure aggregation, which shows the
centre the total only. Letters: N patients, K grid points, M times.

References
----------
Lu et al. (WebDISCO), J Am Med Inform Assoc 2015;22:1212; Breslow, Biometrics 1974;30:89.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from protocol.errors import DataError
from protocol.stats.sums import FloatArray, IntArray, Sums, require
from shared_models.heads.outcomes import checked_outcomes

__all__ = [
    "MAX_GRID_POINTS",
    "RiskSetSums",
    "baseline_hazard",
    "risk_set_sums",
    "surrogate_nll",
    "survival_at",
]

MAX_GRID_POINTS = 120


@dataclass(frozen=True, eq=False)
class RiskSetSums(Sums):
    """Sums over the risk sets of a grid.

    Attributes
    ----------
    grid_months : tuple of float, length K
        Increasing, > 0, at most `MAX_GRID_POINTS`.
    log_sums : float array (K,)
        ``ln S0(t_k) = ln sum over those at risk of e^f``: a logarithm, because no common offset
        serves risk sets of unlike patients; 0 where nobody is at risk.
    at_risk, events : int array (K,)
        Patients at risk at, and events counted at, each grid point.
    event_log_hazard : float
        Sum of f over the counted events.
    """

    grid_months: tuple[float, ...]
    log_sums: FloatArray
    at_risk: IntArray
    events: IntArray
    event_log_hazard: float

    def _check(self) -> None:
        grid = np.asarray(self.grid_months)
        require(
            0 < len(grid) <= MAX_GRID_POINTS and bool((np.diff(grid, prepend=0.0) > 0).all()),
            f"RiskSetSums: the grid must rise from above 0 over 1 to {MAX_GRID_POINTS} points.",
        )
        require(
            self.log_sums.shape == self.at_risk.shape == self.events.shape == grid.shape,
            "RiskSetSums: the sums do not have one entry a grid point.",
        )
        require(bool(np.isfinite(self.log_sums).all()), "RiskSetSums: a sum is not finite.")
        counts = self.at_risk - self.events
        possible = bool((counts >= 0).all() and (counts[:-1] >= self.at_risk[1:]).all())
        require(possible, "RiskSetSums: more patients have events or are at risk than remain.")

    @classmethod
    def empty(cls, grid_months: tuple[float, ...]) -> Self:
        """Return the sums of no patient."""
        none = np.zeros(len(grid_months), np.int64)
        return cls(tuple(grid_months), np.zeros(len(grid_months)), none, none, 0.0)

    def merge(self, other: Self) -> Self:
        """Add the sums of two hospitals on the same grid."""
        require(
            self.grid_months == other.grid_months, "Risk-set sums on different grids do not add."
        )
        mine = np.where(self.at_risk > 0, self.log_sums, -np.inf)
        theirs = np.where(other.at_risk > 0, other.log_sums, -np.inf)
        at_risk = self.at_risk + other.at_risk
        return type(self)(
            self.grid_months,
            np.where(at_risk > 0, np.logaddexp(mine, theirs), 0.0),
            at_risk,
            self.events + other.events,
            self.event_log_hazard + other.event_log_hazard,
        )

    def require_cells(self, min_cell: int) -> None:
        """Refuse sums from which a neighbour's difference tells of few patients.

        Raises
        ------
        DataError
            If between two grid points, or after the last, 1 to ``min_cell - 1`` patients leave, or
            as many have the event at a grid point.
        """
        if self.has_small_cell(min_cell):
            raise DataError(
                f"Between two points of the Cox grid fewer than {min_cell} patients leave or have "
                "the event; use a coarser grid, or a head that is a sum over patients."
            )

    def has_small_cell(self, min_cell: int) -> bool:
        """Whether anywhere 1 to ``min_cell - 1`` patients leave, or have the event."""
        leaving = self.at_risk - np.append(self.at_risk[1:], 0)
        cells = np.concatenate([leaving, self.events])
        return bool(((cells > 0) & (cells < min_cell)).any())

    def partial_log_likelihood(self) -> float:
        """Return the log partial likelihood (Breslow) of everyone in the sums; higher is better."""
        return self.event_log_hazard - float((self.events * self.log_sums).sum())


def risk_set_sums(
    log_hazard: Tensor, months: np.ndarray, event: np.ndarray, grid_months: tuple[float, ...]
) -> RiskSetSums:
    """Return one hospital's sums, phase (a); no gradient is kept.

    Parameters
    ----------
    log_hazard : Tensor
        (N,) log relative hazard f, or (N, K) where it depends on time (Cox-Time): at the grid.
    months, event : ndarray
        (N,) follow-up times, > 0, and 1 event, 0 censored. N may be 0.
    grid_months : tuple of float
        (K,).

    Raises
    ------
    DataError
        If an outcome is impossible, the grid does not rise, or a hazard is not finite.
    """
    at_risk, counted = _membership(months, event, grid_months)
    score = log_hazard.detach().cpu().double().numpy()
    score = np.broadcast_to(score[:, None] if score.ndim == 1 else score, at_risk.shape)
    if not np.isfinite(score).all():
        raise DataError("A predicted log hazard is not finite; lower the learning rate.")
    if not len(score):
        return RiskSetSums.empty(tuple(grid_months))
    with np.errstate(invalid="ignore"):
        top = np.where(at_risk, score, -np.inf).max(axis=0)
        scaled = np.where(at_risk, np.exp(np.minimum(score - top, 0.0)), 0.0).sum(axis=0)
    somebody = at_risk.any(axis=0)
    log_sums = np.where(somebody, top, 0.0) + np.log(np.where(somebody, scaled, 1.0))
    return RiskSetSums(
        tuple(float(point) for point in grid_months),
        log_sums,
        at_risk.sum(axis=0),
        counted.sum(axis=0),
        float(score[counted].sum()),
    )


def surrogate_nll(
    log_hazard: Tensor, months: np.ndarray, event: np.ndarray, pooled: RiskSetSums
) -> Tensor:
    """Return one hospital's surrogate loss, phase (b).

    Parameters
    ----------
    log_hazard : Tensor
        (N,) or (N, K), as in `risk_set_sums`, with gradient.
    months, event : ndarray
        (N,) follow-up times, > 0, and 1 event, 0 censored.
    pooled : RiskSetSums
        The sums of all hospitals at the same weights.

    Returns
    -------
    Tensor
        Scalar ``sum_k d_k S0_s(t_k) / S0(t_k) - sum over own events of f``, the pooled sums without
        gradient. Its gradient, added over hospitals, is that of the pooled negative log partial
        likelihood; its value is none. Divide by a number common to all hospitals.

    Raises
    ------
    DataError
        If an outcome is impossible.
    """
    members, events = _membership(months, event, pooled.grid_months)
    device, dtype = log_hazard.device, log_hazard.dtype
    at_risk = torch.from_numpy(members).to(device)
    counted = torch.from_numpy(events).to(device)
    log_sums = torch.from_numpy(pooled.log_sums.copy()).to(device, dtype)
    num_events = torch.from_numpy(pooled.events.copy()).to(device, dtype)
    score = log_hazard[:, None] if log_hazard.ndim == 1 else log_hazard
    score = score.expand(at_risk.shape)
    # Shares of a risk set, <= 1 at the weights of the sums; outside it nothing is exponentiated.
    shares = torch.where(at_risk, score - log_sums, -torch.inf).exp()
    return (shares.sum(dim=0) * num_events).sum() - score.masked_fill(~counted, 0).sum()


def baseline_hazard(pooled: RiskSetSums) -> FloatArray:
    """Return Breslow's increments of the cumulative baseline hazard, (K,): ``d_k / S0(t_k)``."""
    return np.exp(-pooled.log_sums) * pooled.events


def survival_at(log_hazard: Tensor, pooled: RiskSetSums, months: Tensor) -> Tensor:
    """Return S at given times, a step function that falls at grid points.

    Parameters
    ----------
    log_hazard : Tensor
        (B,) or (B, K), as in `risk_set_sums`.
    pooled : RiskSetSums
        Of the training patients of all hospitals, or of one with its own baseline.
    months : Tensor
        (M,) times >= 0.

    Returns
    -------
    Tensor
        (B, M) float64: ``exp(-sum_{t_k <= t} d_k e^f / S0(t_k))``.
    """
    score = log_hazard.double()
    score = score[:, None] if score.ndim == 1 else score
    log_sums = torch.from_numpy(pooled.log_sums.copy()).to(score)
    # Too large a step means S = 0, not an infinite product with no event.
    steps = (score - log_sums).clamp(max=700).exp() * torch.from_numpy(pooled.events.copy()).to(
        score
    )
    grid = torch.tensor(pooled.grid_months, dtype=torch.float64, device=months.device)
    passed = grid[:, None] <= months.double()[None, :]
    return torch.exp(-(steps @ passed.to(steps)))


def _membership(
    months: np.ndarray, event: np.ndarray, grid_months: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return who is at risk, and who has the event, at each grid point, (N, K) bool each."""
    time, happened, grid = checked_outcomes(months, event, np.asarray(grid_months))
    index = np.searchsorted(grid, time, side="left")
    counted = (happened[:, None] == 1) & (index[:, None] == np.arange(len(grid)))
    return (grid <= time[:, None]) | counted, counted
