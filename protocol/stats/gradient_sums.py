"""Hospitals' shares of the gradient of one likelihood, which add up to it."""

from dataclasses import dataclass
from typing import Self

from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["GradientSums"]


@dataclass(frozen=True, eq=False)
class GradientSums(Sums):
    """One share.

    Attributes
    ----------
    names : tuple of str
        Parameters, in the order in which ``values`` holds them.
    values : float array
        Flat. Rounded to multiples of ``q`` at H hospitals it is off by ``H q / 2``: with 36 bits
        1e-10, where a gradient that ends a training is above 1e-6.
    num_patients, num_events : int
    loss : float
        Sum over the events.
    """

    names: tuple[str, ...]
    values: FloatArray
    num_patients: int
    num_events: int
    loss: float

    def _check(self) -> None:
        require(self.values.ndim == 1, "GradientSums: expected one row of numbers.")
        possible = self.num_events <= self.num_patients
        require(possible, "GradientSums: more events than patients.")

    def merge(self, other: Self) -> Self:
        """Add two shares of one gradient."""
        same = self.names == other.names and self.values.shape == other.values.shape
        require(same, "Gradients of unlike networks cannot be added.")
        return type(self)(
            self.names,
            self.values + other.values,
            self.num_patients + other.num_patients,
            self.num_events + other.num_events,
            self.loss + other.loss,
        )
