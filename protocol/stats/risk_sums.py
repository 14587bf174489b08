"""Sums over the risk sets of a network as numbers that add: hazards, where they travel as logs."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["RiskSums"]


@dataclass(frozen=True, eq=False)
class RiskSums(Sums):
    """The risk sets on a common grid.

    Attributes
    ----------
    grid_months : tuple of float, length G
    hazard : float array (G,)
        ``sum e^f`` over who is at risk. Rounded to multiples of ``q`` at H hospitals it is off by
        ``H q / 2``: with 36 bits 1e-10 of a patient of average hazard.
    at_risk, events : int array (G,)
    event_log_hazard : float
        Sum of f over the events.
    """

    grid_months: tuple[float, ...]
    hazard: FloatArray
    at_risk: IntArray
    events: IntArray
    event_log_hazard: float

    def _check(self) -> None:
        shape = (len(self.grid_months),)
        same = self.hazard.shape == self.at_risk.shape == self.events.shape == shape
        require(same, "RiskSums: the sums do not have one entry a grid point.")
        require(bool((self.hazard >= 0).all()), "RiskSums: a sum of hazards is negative.")

    @classmethod
    def empty(cls, grid_months: tuple[float, ...]) -> Self:
        """Return the sums of nobody."""
        none = np.zeros(len(grid_months), np.int64)
        return cls(tuple(grid_months), np.zeros(len(grid_months)), none, none, 0.0)

    def filled(self, document: dict[str, Any]) -> Self:
        """Return a hospital's sums, as ``RiskSetSums.to_dict`` wrote them.

        Raises
        ------
        PayloadError
            If they are on another grid.
        """
        same = tuple(document["grid_months"]) == self.grid_months
        require(same, "The risk sets are on another grid than the one that was asked for.")
        at_risk = np.array(document["at_risk"], np.int64)
        with np.errstate(over="ignore"):
            hazard = np.where(at_risk > 0, np.exp(np.array(document["log_sums"], np.float64)), 0.0)
        events = np.array(document["events"], np.int64)
        log_hazard = float(document["event_log_hazard"])
        return type(self)(self.grid_months, hazard, at_risk, events, log_hazard)

    def merge(self, other: Self) -> Self:
        """Add the risk sets of two hospitals."""
        require(self.grid_months == other.grid_months, "Risk sets on different grids do not add.")
        return type(self)(
            self.grid_months,
            self.hazard + other.hazard,
            self.at_risk + other.at_risk,
            self.events + other.events,
            self.event_log_hazard + other.event_log_hazard,
        )

    def document(self) -> dict[str, Any]:
        """Return what ``RiskSetSums.from_dict`` reads."""
        there = self.at_risk > 0
        # A risk set whose hazards all were rounded away weighs as little as can be told.
        logs = np.log(np.where(there, np.maximum(self.hazard, 2.0**-36), 1.0))
        rest = {name: told for name, told in self.to_dict().items() if name != "hazard"}
        return {**rest, "log_sums": logs.tolist()}
