"""Probability of being still under observation, from summed life tables (for IPCW).

First pass: the hospitals' life tables are added, and the centre computes G once for all of them.
It then travels down as K + 1 numbers, and every weight ``1 / G`` of the second pass is a value of
that one curve; no hospital needs another's times.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.documents import check_keys
from protocol.errors import PayloadError
from protocol.stats.kaplan_meier import NOBODY
from protocol.stats.lifetable import LifeTable
from protocol.stats.sums import FloatArray, require

__all__ = ["CensoringCurve", "finite_numbers"]


@dataclass(frozen=True)
class CensoringCurve:
    """Kaplan-Meier of the censoring time at grid points.

    Times are treated as if they lay at the end of their interval, an event before a censoring, as
    scikit-survival does: ``G(grid[k + 1]) = prod_{j <= k} (1 - c_j / (n_j - d_j))`` with at-risk
    n, events d and censorings c of interval j. Where all times are grid points this is the exact
    curve; otherwise G is that of the times rounded up to the grid, so a weight is at most one
    interval's censoring off.

    Attributes
    ----------
    grid_months : tuple of float, length K + 1
        Increasing, from 0.
    survival : tuple of float, length K + 1
        G at the grid points, from 1, never rising, in [0, 1].
    """

    grid_months: tuple[float, ...]
    survival: tuple[float, ...]

    def __post_init__(self) -> None:
        grid, values = np.asarray(self.grid_months), np.asarray(self.survival)
        rising = len(grid) >= 2 and grid[0] == 0 and bool((np.diff(grid) > 0).all())
        require(rising, "CensoringCurve: the grid must rise from 0 over at least one interval.")
        falling = values.shape == grid.shape and bool((np.diff(values) <= 0).all())
        require(
            falling and values[0] == 1 and values[-1] >= 0,
            "CensoringCurve: G must start at 1 and never rise, one value a grid point.",
        )

    @classmethod
    def from_table(cls, table: LifeTable) -> "CensoringCurve":
        """Return the curve of all groups of a (summed) life table."""
        censored = table.censored.sum(axis=0)[:-1]
        left = table.at_risk.sum(axis=0)[:-1] - table.events.sum(axis=0)
        known = left > NOBODY
        factor = np.where(known, 1 - censored / np.where(known, left, 1.0), 1.0)
        values = np.concatenate([[1.0], np.cumprod(np.clip(factor, 0, 1))])
        return cls(table.grid_months, tuple(float(value) for value in values))

    def to_dict(self) -> dict[str, Any]:
        """Return what the centre sends to every hospital for the second pass."""
        return {"grid_months": list(self.grid_months), "survival": list(self.survival)}

    @classmethod
    def from_dict(cls, values: Any) -> "CensoringCurve":
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
            If a key is missing or unknown, or a value is not a list of finite numbers.
        """
        require(isinstance(values, dict), "CensoringCurve must be an object; send its to_dict().")
        check_keys(values, frozenset({"grid_months", "survival"}), "CensoringCurve")
        grid = finite_numbers(values["grid_months"], "CensoringCurve.grid_months")
        return cls(grid, finite_numbers(values["survival"], "CensoringCurve.survival"))

    def at(self, months: npt.ArrayLike) -> FloatArray:
        """Return G at the end of the interval that holds each time; beyond the grid its last value.

        Raises
        ------
        PayloadError
            If a time is negative or not finite.
        """
        time = np.asarray(months, np.float64)
        if not bool((np.isfinite(time) & (time >= 0)).all()):
            raise PayloadError("A time is negative or not finite.")
        index = np.searchsorted(np.asarray(self.grid_months), time, side="left")
        return np.asarray(self.survival)[np.minimum(index, len(self.survival) - 1)]

    def weight(self, months: npt.ArrayLike) -> FloatArray:
        """Return ``1 / G`` at each time, 0 where G is 0 (nobody was left to be weighted up)."""
        values = self.at(months)
        return np.where(values > 0, 1 / np.where(values > 0, values, 1.0), 0.0)

    @property
    def interval_weights(self) -> FloatArray:
        """``1 / G`` at the end of every interval, (K,); 0 where G is 0."""
        return self.weight(self.grid_months[1:])


def finite_numbers(values: Any, place: str) -> tuple[float, ...]:
    """Return a received list of numbers as a tuple of floats.

    Raises
    ------
    PayloadError
        Naming ``place``, if it is not a list or an item is not a finite number.
    """
    fine = isinstance(values, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)
        for item in values
    )
    require(fine, f"{place} must be a list of finite numbers.")
    return tuple(float(item) for item in values)
