"""Agreement of measured with reference quantities (Bland & Altman) from sums."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.cells import spread
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["QUANTITIES", "AgreementSums", "Quantity"]

MEAN_BINS, DIFFERENCE_BINS = 32, 32
LIMIT_FACTOR = 1.96


@dataclass(frozen=True)
class Quantity:
    """A clinical quantity, its unit, and the fixed window of its Bland-Altman table."""

    label: str
    unit: str
    mean_range: tuple[float, float]
    difference_range: tuple[float, float]


QUANTITIES = {
    "lv_ef_percent": Quantity("LV ejection fraction", "%", (0.0, 96.0), (-24.0, 24.0)),
    "lv_edv_ml": Quantity("LV end-diastolic volume", "mL", (0.0, 480.0), (-64.0, 64.0)),
    "lv_esv_ml": Quantity("LV end-systolic volume", "mL", (0.0, 480.0), (-64.0, 64.0)),
    "lv_sv_ml": Quantity("LV stroke volume", "mL", (0.0, 192.0), (-48.0, 48.0)),
    "lv_mass_g": Quantity("LV mass", "g", (0.0, 480.0), (-80.0, 80.0)),
    "rv_ef_percent": Quantity("RV ejection fraction", "%", (0.0, 96.0), (-32.0, 32.0)),
    "rv_edv_ml": Quantity("RV end-diastolic volume", "mL", (0.0, 480.0), (-80.0, 80.0)),
    "rv_esv_ml": Quantity("RV end-systolic volume", "mL", (0.0, 480.0), (-80.0, 80.0)),
    "rv_sv_ml": Quantity("RV stroke volume", "mL", (0.0, 192.0), (-48.0, 48.0)),
}


@dataclass(frozen=True, eq=False)
class AgreementSums(Sums):
    """Predicted against reference values of one quantity.

    Attributes
    ----------
    quantity : tuple of one str
        Key of `QUANTITIES`; it fixes the unit and the grid of ``table``.
    n : int
        Patients with both values.
    absolute : float
        Sum of ``|predicted - reference|``.
    mean : float array (2,)
        Mean predicted and mean reference value.
    squares : float array (3,)
        Centred sums: predicted squared, reference squared, product (Chan's update, see `Moments`).
    table : float array (32, 32)
        Patients by mean of both values (rows) and difference (columns) on the fixed grid; values
        beyond the window stand in its end bins. Fractions after `suppressed`.
    """

    quantity: tuple[str, ...]
    n: int
    absolute: float
    mean: FloatArray
    squares: FloatArray
    table: FloatArray

    def _check(self) -> None:
        known = len(self.quantity) == 1 and self.quantity[0] in QUANTITIES
        require(known, f"AgreementSums: the quantity must be one of {', '.join(QUANTITIES)}.")
        require(
            self.mean.shape == (2,)
            and self.squares.shape == (3,)
            and self.table.shape == (MEAN_BINS, DIFFERENCE_BINS),
            "AgreementSums: expected 2 means, 3 squares and a 32 x 32 table.",
        )
        possible = self.absolute >= 0 and bool((self.squares[:2] >= 0).all())
        require(
            possible and bool((self.table >= 0).all()),
            "AgreementSums: a sum of squares is negative.",
        )

    @classmethod
    def empty(cls, quantity: str) -> Self:
        """Return the sums of no patient."""
        table = np.zeros((MEAN_BINS, DIFFERENCE_BINS))
        return cls((quantity,), 0, 0.0, np.zeros(2), np.zeros(3), table)

    @classmethod
    def of(cls, quantity: str, predicted: npt.ArrayLike, reference: npt.ArrayLike) -> Self:
        """Return the sums of one hospital.

        Parameters
        ----------
        quantity : str
            Key of `QUANTITIES`.
        predicted, reference : float array (N,)
            One entry a patient, in the quantity's unit; a pair with a nan is left out.
        """
        x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (predicted, reference))
        require(x.shape == y.shape, f"{quantity}: predicted and reference differ in length.")
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        if len(x) == 0:
            return cls.empty(quantity)
        mean = np.array([x.mean(), y.mean()])
        dx, dy = x - mean[0], y - mean[1]
        squares = np.array([dx @ dx, dy @ dy, dx @ dy])
        require(quantity in QUANTITIES, f"'{quantity}' is none of {', '.join(QUANTITIES)}.")
        table = _table(QUANTITIES[quantity], (x + y) / 2, x - y)
        return cls((quantity,), len(x), float(np.abs(x - y).sum()), mean, squares, table)

    def merge(self, other: Self) -> Self:
        """Join the sums of two sets of patients; both must be of the same quantity."""
        require(self.quantity == other.quantity, "Different quantities cannot be added.")
        if self.n == 0 or other.n == 0:  # n * mean / n is not always mean to the last bit
            return other if self.n == 0 else self
        n = self.n + other.n
        difference = other.mean - self.mean
        products = np.array([difference[0] ** 2, difference[1] ** 2, difference[0] * difference[1]])
        squares = self.squares + other.squares + products * (self.n * other.n / n)
        mean = (self.n * self.mean + other.n * other.mean) / n
        absolute, table = self.absolute + other.absolute, self.table + other.table
        return type(self)(self.quantity, n, absolute, mean, squares, table)

    @property
    def bias(self) -> float:
        """Mean of predicted minus reference."""
        return float(self.mean[0] - self.mean[1]) if self.n else math.nan

    @property
    def difference_sd(self) -> float:
        """Sample standard deviation of predicted minus reference."""
        if self.n < 2:
            return math.nan
        square = self.squares[0] + self.squares[1] - 2 * self.squares[2]
        return math.sqrt(max(float(square), 0.0) / (self.n - 1))

    @property
    def limits(self) -> tuple[float, float]:
        """95 % limits of agreement, bias -/+ 1.96 sd (Bland & Altman 1986)."""
        half = LIMIT_FACTOR * self.difference_sd
        return self.bias - half, self.bias + half

    @property
    def mae(self) -> float:
        """Mean absolute difference, lower is better."""
        return self.absolute / self.n if self.n else math.nan

    @property
    def correlation(self) -> float:
        """Pearson's r; nan when either side does not vary."""
        scale = math.sqrt(float(self.squares[0] * self.squares[1]))
        return float(self.squares[2]) / scale if scale > 0 else math.nan

    @property
    def concordance(self) -> float:
        """Lin's concordance correlation (Lin 1989): ``2 s_xy / (s_x^2 + s_y^2 + bias^2)``."""
        below = float(self.squares[0] + self.squares[1]) + self.n * self.bias**2 if self.n else 0.0
        return 2 * float(self.squares[2]) / below if below > 0 else math.nan

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing below ``min_cell`` patients, else the sums with a coarser table."""
        if self.n < min_cell:
            return type(self).empty(self.quantity[0])
        table = spread(np.rint(self.table).astype(np.int64), min_cell)
        return type(self)(self.quantity, self.n, self.absolute, self.mean, self.squares, table)


def _table(quantity: Quantity, mean: FloatArray, difference: FloatArray) -> FloatArray:
    rows = _bin(mean, quantity.mean_range, MEAN_BINS)
    columns = _bin(difference, quantity.difference_range, DIFFERENCE_BINS)
    table = np.zeros((MEAN_BINS, DIFFERENCE_BINS))
    np.add.at(table, (rows, columns), 1.0)
    return table


def _bin(values: FloatArray, window: tuple[float, float], bins: int) -> npt.NDArray[np.intp]:
    low, high = window
    return np.clip(np.floor((values - low) / (high - low) * bins), 0, bins - 1).astype(np.intp)
