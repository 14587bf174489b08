"""Predicted against observed probability of an event by a horizon, in groups of predicted risk."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.histogram import risk_group
from protocol.stats.lifetable import LifeTable
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["Calibration"]


@dataclass(frozen=True, eq=False)
class Calibration(Sums):
    """Sums of predicted risk and a life table per group of predicted risk.

    Attributes
    ----------
    cuts : tuple of float, length G - 1
        Increasing inner cut points of predicted risk, common to all hospitals; a risk equal to a
        cut point falls above it.
    predicted : float array (G,)
        Sum of the predicted probability of an event by the horizon.
    table : LifeTable
        Its groups are the risk groups, its grid ends at the horizon.
    """

    cuts: tuple[float, ...]
    predicted: FloatArray
    table: LifeTable

    def _check(self) -> None:
        groups = len(self.cuts) + 1
        rising = bool((np.diff(np.asarray(self.cuts)) > 0).all())
        require(rising, "Calibration: the cut points must rise.")
        require(
            self.predicted.shape == (groups,) and len(self.table.names) == groups,
            "Calibration: one more group than cut points is expected.",
        )
        possible = (self.predicted >= 0) & (self.predicted <= self.table.num_patients + 1e-6)
        require(bool(possible.all()), "Calibration: a predicted probability lies outside [0, 1].")

    @classmethod
    def empty(cls, cuts: tuple[float, ...], grid_months: tuple[float, ...]) -> Self:
        """Return the sums of no patient."""
        names = tuple(f"group {group + 1}" for group in range(len(cuts) + 1))
        return cls(tuple(cuts), np.zeros(len(names)), LifeTable.empty(tuple(grid_months), names))

    @classmethod
    def of(
        cls,
        months: npt.ArrayLike,
        event: npt.ArrayLike,
        predicted: npt.ArrayLike,
        *,
        cuts: tuple[float, ...],
        grid_months: tuple[float, ...],
    ) -> Self:
        """Return the sums of one hospital.

        Parameters
        ----------
        months : float array (N,)
            Time to event or censoring, months.
        event : int or bool array (N,)
            1 event, 0 censored.
        predicted : float array (N,)
            Predicted probability of an event by ``grid_months[-1]``, in [0, 1].

        Raises
        ------
        PayloadError
            If lengths differ or a probability lies outside [0, 1].
        """
        risk = np.asarray(predicted, dtype=np.float64).ravel()
        require(
            bool(((risk >= 0) & (risk <= 1)).all()), "A predicted probability lies outside [0, 1]."
        )
        blank = cls.empty(cuts, grid_months)
        groups = risk_group(risk, tuple(cuts))
        names = blank.table.names
        table = LifeTable.of(months, event, groups, grid_months=tuple(grid_months), names=names)
        sums = np.bincount(groups, weights=risk, minlength=len(names)).astype(np.float64)
        return cls(tuple(cuts), sums, table)

    def merge(self, other: Self) -> Self:
        """Add two hospitals' sums; cut points and grid must agree."""
        require(self.cuts == other.cuts, "Calibrations with different cut points cannot be added.")
        table = self.table.merge(other.table)
        return type(self)(self.cuts, self.predicted + other.predicted, table)

    @property
    def mean_predicted(self) -> FloatArray:
        """Mean predicted probability per group; nan without patients."""
        n = self.table.num_patients
        return np.where(n > 0, self.predicted / np.maximum(n, 1), np.nan)

    def observed(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return 1 - Kaplan-Meier at the horizon per group, with its 95 % limits (low, high).

        nan where the group is empty or nobody of it was followed to the last interval.
        """
        rows = []
        for group, n in enumerate(self.table.num_patients):
            curve = self.table.curve(group)
            ends = (curve.survival[-1], curve.upper[-1], curve.lower[-1])
            rows.append([1 - end if n else math.nan for end in ends])
        value, low, high = np.array(rows).T
        return value, low, high

    def slope(self) -> tuple[float, float]:
        """Return slope and intercept of observed on predicted risk, groups weighted by patients.

        A slope of 1 with intercept 0 is perfect; below 1 the predictions are too extreme. nan with
        fewer than two usable groups.
        """
        x, (y, _, _) = self.mean_predicted, self.observed()
        weight = np.where(np.isfinite(x) & np.isfinite(y), self.table.num_patients, 0.0)
        x, y = np.nan_to_num(x), np.nan_to_num(y)
        if np.count_nonzero(weight) < 2:
            return math.nan, math.nan
        mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
        spread = float(weight @ (x - mean_x) ** 2)
        if spread == 0:
            return math.nan, math.nan
        slope = float(weight @ ((x - mean_x) * (y - mean_y))) / spread
        return slope, float(mean_y - slope * mean_x)

    def observed_over_expected(self) -> float:
        """Return observed over expected events by the horizon; 1 is ideal, nan without a group."""
        value, _, _ = self.observed()
        usable = np.isfinite(value) & (self.table.num_patients > 0)
        expected = float(self.predicted[usable].sum())
        observed = float((value[usable] * self.table.num_patients[usable]).sum())
        return observed / expected if expected > 0 else math.nan

    def suppressed(self, min_cell: int, *, complementary: bool = True) -> Self:
        """Return sums without small cells; groups that the life table withholds are emptied.

        See `LifeTable.suppressed` for the parameters.
        """
        table = self.table.suppressed(min_cell, complementary=complementary)
        return type(self)(self.cuts, np.where(table.num_patients > 0, self.predicted, 0.0), table)
