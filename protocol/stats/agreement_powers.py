"""Agreement of measured with reference quantities as sums that add; see `power_sums`.

The product of both values is not summed itself: the spread of their difference, on the same scale,
has it, ``sum ab = (sum a^2 + sum b^2 - sum (a - b)^2) / 2``.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from protocol.stats.agreement import QUANTITIES, AgreementSums
from protocol.stats.moments import Moments
from protocol.stats.power_sums import PowerSums
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["AgreementPowers"]

VALUES = ("predicted", "reference", "difference")


@dataclass(frozen=True, eq=False)
class AgreementPowers(Sums):
    """Predicted against reference values of one quantity.

    Attributes
    ----------
    quantity : tuple of one str
        Key of `protocol.stats.agreement.QUANTITIES`, whose ranges are the agreed ones.
    absolute : float
        Sum of ``|predicted - reference|``.
    values : PowerSums
        Of the predicted value, the reference and their difference.
    table : float array (32, 32)
        As in `AgreementSums`.
    """

    quantity: tuple[str, ...]
    absolute: float
    values: PowerSums
    table: FloatArray

    def _check(self) -> None:
        require(self.absolute >= 0, "AgreementPowers: a sum of distances is negative.")
        require(self.values.names == VALUES, "AgreementPowers: expected both and the difference.")

    @classmethod
    def empty(cls, quantity: str) -> Self:
        """Return the sums of nobody."""
        known = QUANTITIES[quantity]
        ranges = (known.mean_range, known.mean_range, known.difference_range)
        nobody = AgreementSums.empty(quantity)
        return cls((quantity,), 0.0, PowerSums.empty(VALUES, ranges), nobody.table)

    def filled(self, sums: AgreementSums) -> Self:
        """Return the sums in this form.

        Raises
        ------
        PayloadError
            If they are of another quantity.
        """
        require(sums.quantity == self.quantity, "The agreement is of another quantity.")
        (a, b), (aa, bb, ab) = sums.mean.tolist(), sums.squares.tolist()
        n = np.full(3, sums.n, np.int64)
        squares = np.array([aa, bb, max(aa + bb - 2 * ab, 0.0)])
        none = np.zeros(3, np.int64)
        moments = Moments(VALUES, n, none, np.array([a, b, a - b]), squares)
        return type(self)(self.quantity, sums.absolute, self.values.filled(moments), sums.table)

    def merge(self, other: Self) -> Self:
        """Add the sums of two sets of patients."""
        require(self.quantity == other.quantity, "Different quantities cannot be added.")
        return type(self)(
            self.quantity,
            self.absolute + other.absolute,
            self.values.merge(other.values),
            self.table + other.table,
        )

    def agreement(self) -> AgreementSums:
        """Return the sums as reports draw them."""
        moments = self.values.moments()
        aa, bb, dd = moments.squares.tolist()
        return AgreementSums(
            self.quantity,
            int(moments.n[0]),
            self.absolute,
            moments.mean[:2],
            np.array([aa, bb, (aa + bb - dd) / 2]),
            self.table,
        )
