"""Normal equations of a linear regression: what hospitals add so that the centre can solve it.

A reader learns the first and second moments of the columns among patients in whom the target is
known; with fewer patients than columns these would be the patients, hence `suppressed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.cox import check_symmetric
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["INTERCEPT", "MAX_COLUMNS", "NormalEquations"]

MAX_COLUMNS = 400
INTERCEPT = "(intercept)"


@dataclass(frozen=True, eq=False)
class NormalEquations(Sums):
    """Sums over the patients with a known target y, for predictors x (intercept among them).

    Attributes
    ----------
    names : tuple of str, length P
        Predictors.
    target : tuple of one str
    n : int
        Patients.
    xx, xy : float array (P, P), (P,)
        ``sum x x'`` and ``sum x y``.
    yy : float
        ``sum y^2``.
    withheld : int
        Hospitals whose sums are not in here because they were small.
    """

    names: tuple[str, ...]
    target: tuple[str, ...]
    n: int
    xx: FloatArray
    xy: FloatArray
    yy: float
    withheld: int

    def _check(self) -> None:
        width = len(self.names)
        require(1 <= width <= MAX_COLUMNS, f"NormalEquations: name 1 to {MAX_COLUMNS} predictors.")
        require(len(self.target) == 1, "NormalEquations: name one target.")
        require(
            (self.xx.shape, self.xy.shape) == ((width, width), (width,)),
            "NormalEquations: the sums do not have one entry a predictor.",
        )
        check_symmetric(self.xx, "NormalEquations.xx")
        require(self.yy >= 0, "NormalEquations: a sum of squares is negative.")

    @classmethod
    def empty(cls, names: Sequence[str], target: str, withheld: int = 0) -> Self:
        """Return the sums of no patient."""
        width = len(names)
        square = np.zeros((width, width))
        return cls(tuple(names), (target,), 0, square, np.zeros(width), 0.0, withheld)

    @classmethod
    def of(cls, names: Sequence[str], target: str, x: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Return the sums of one hospital.

        Parameters
        ----------
        x : float array (N, P)
        y : float array (N,)

        Raises
        ------
        PayloadError
            If shapes do not match or a value is not finite.
        """
        table, known = np.asarray(x, np.float64), np.asarray(y, np.float64).ravel()
        require(
            table.shape == (len(known), len(names)),
            "The regression's table does not have one row a patient and one column a predictor.",
        )
        finite = bool(np.isfinite(table).all() and np.isfinite(known).all())
        require(finite, "A value of the regression's table is not finite; fill it in first.")
        xx = table.T @ table
        return cls(
            tuple(names),
            (target,),
            len(known),
            (xx + xx.T) / 2,
            table.T @ known,
            float(known @ known),
            0,
        )

    def merge(self, other: Self) -> Self:
        """Add two hospitals' sums of the same regression."""
        same = (self.names, self.target) == (other.names, other.target)
        require(same, "Normal equations of different regressions cannot be added.")
        return type(self)(
            self.names,
            self.target,
            self.n + other.n,
            self.xx + other.xx,
            self.xy + other.xy,
            self.yy + other.yy,
            self.withheld + other.withheld,
        )

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing but a mark where patients are fewer than ``min_cell`` or than predictors.

        Nobody at all is told: a hospital that never measures something hides no patient.
        """
        if min_cell <= 1 or self.n == 0 or self.n >= max(min_cell, len(self.names)):
            return self
        return self.empty(self.names, self.target[0], max(self.withheld, 1))
