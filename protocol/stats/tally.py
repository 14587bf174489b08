"""Named numbers that add: counts of an agreed list of things."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["Tally"]


@dataclass(frozen=True, eq=False)
class Tally(Sums):
    """One number a name.

    Attributes
    ----------
    names : tuple of str, length V
        What is counted, agreed beforehand: a list of what occurs would tell what occurs.
    values : float array (V,)
    """

    names: tuple[str, ...]
    values: FloatArray

    def _check(self) -> None:
        require(len(set(self.names)) == len(self.names), "Tally: something is named twice.")
        require(self.values.shape == (len(self.names),), "Tally: expected one number a name.")

    @classmethod
    def empty(cls, names: Sequence[str]) -> Self:
        """Return the tally of nobody."""
        return cls(tuple(names), np.zeros(len(names)))

    @classmethod
    def of(cls, names: Sequence[str], counted: Mapping[str, float | None]) -> Self:
        """Return a tally of what was counted; what is not named or None counts as 0.

        Raises
        ------
        PayloadError
            If something was counted that is not on the list.
        """
        strange = sorted(set(counted) - set(names))
        require(
            not strange,
            f"Tally: '{strange[0][:40] if strange else ''}' is not on the list of what is counted; "
            "both ends must run the same version.",
        )
        return cls(tuple(names), np.array([float(counted.get(name) or 0.0) for name in names]))

    def merge(self, other: Self) -> Self:
        """Add two tallies of the same list."""
        require(self.names == other.names, "Tallies of different lists cannot be added.")
        return type(self)(self.names, self.values + other.values)

    def counts(self) -> dict[str, int]:
        """Return the nearest whole number by name."""
        return dict(zip(self.names, np.rint(self.values).astype(np.int64).tolist(), strict=True))

    def value(self, name: str) -> float:
        """Return one number."""
        return float(self.values[self.names.index(name)])
