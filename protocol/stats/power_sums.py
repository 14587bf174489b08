"""Mean and spread as sums about an agreed centre, which add where `Moments` have to be joined.

With an agreed centre c and scale s, and ``z = (x - c) / s``, hospitals add ``n``, ``sum z`` and
``sum z^2``; then ``mean = c + s sum(z) / n``, and the sum of squared deviations is
``s^2 (sum z^2 - n mean(z)^2)``.

Quantisation. In a secure sum both are rounded to multiples of ``q = 2^-30`` at each of H hospitals,
so ``sum z`` and ``sum z^2`` are off by ``H q / 2`` at most: the mean by ``s H q / (2 n)`` and the
variance by ``s^2 H q (1 + 2 |mean z|) / (2 n)``. With ten hospitals, a hundred patients and a range
of forty years that is 1e-9 years, where the mean itself is known to a year. What is lost by the
difference of two squares (why `Moments` keep deviations) is little about a centre that lies among
the values, so an agreed range matters; spreads below what rounding can make are set to 0, for a
constant must stay one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from protocol.stats.moments import Moments
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["POWER_STEP_BITS", "PowerSums"]

POWER_STEP_BITS = 30
MOST_HOSPITALS = 200
# Of the float64 in which sums are formed, with room for a few additions.
ROUNDING = 2.0**-48


@dataclass(frozen=True, eq=False)
class PowerSums(Sums):
    """Per variable: how many values, how many missing, sum and sum of squares in agreed units.

    Attributes
    ----------
    names : tuple of str, length V
    centre, scale : tuple of float, length V
        Agreed, from no patient; scales are above 0.
    n, missing : int array (V,)
    first, second : float array (V,)
        ``sum z`` and ``sum z^2``.
    """

    names: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    n: IntArray
    missing: IntArray
    first: FloatArray
    second: FloatArray

    def _check(self) -> None:
        shape = (len(self.names),)
        agreed = len(self.centre) == len(self.scale) == len(self.names)
        require(agreed and all(s > 0 for s in self.scale), "PowerSums: a scale above 0 a name.")
        for array in (self.n, self.missing, self.first, self.second):
            require(array.shape == shape, "PowerSums: every array needs one entry a name.")
        require(bool((self.second >= 0).all()), "PowerSums: squares are never negative.")

    @classmethod
    def empty(cls, names: Sequence[str], ranges: Sequence[tuple[float, float]]) -> Self:
        """Return the sums of nobody.

        Parameters
        ----------
        ranges : sequence of (low, high)
            Between which most values lie; values beyond count as they are.
        """
        centre = tuple((low + high) / 2 for low, high in ranges)
        scale = tuple((high - low) / 2 for low, high in ranges)
        counts, sums = np.zeros(len(names), np.int64), np.zeros(len(names))
        return cls(tuple(names), centre, scale, counts, counts, sums, sums)

    def filled(self, moments: Moments) -> Self:
        """Return these variables' sums of whom the moments are of.

        Raises
        ------
        PayloadError
            If they are moments of other variables.
        """
        require(
            moments.names == self.names,
            "The moments are of other variables than the ones that were asked for.",
        )
        centre, scale = np.array(self.centre), np.array(self.scale)
        mean = np.where(moments.n > 0, (moments.mean - centre) / scale, 0.0)
        second = moments.squares / scale**2 + moments.n * mean**2
        values = {"n": moments.n, "missing": moments.missing, "first": moments.n * mean}
        return type(self)(**(vars(self) | values | {"second": second}))

    def merge(self, other: Self) -> Self:
        """Add the sums of two sets of patients about the same centres."""
        same = (self.names, self.centre, self.scale) == (other.names, other.centre, other.scale)
        require(same, "Power sums of different variables or centres cannot be added.")
        added = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("n", "missing", "first", "second")
        }
        return type(self)(**(vars(self) | added))

    def moments(self) -> Moments:
        """Return the moments these sums are of."""
        mean = self.first / np.maximum(self.n, 1)
        square = self.n * mean**2
        least = MOST_HOSPITALS * 2.0 ** -(POWER_STEP_BITS + 1) * (1 + 2 * np.abs(mean))
        left = self.second - square
        left = np.where(left > least + ROUNDING * self.second, left, 0.0)
        centre, scale = np.array(self.centre), np.array(self.scale)
        return Moments(
            self.names,
            self.n,
            self.missing,
            np.where(self.n > 0, centre + scale * mean, 0.0),
            np.where(self.n > 0, left * scale**2, 0.0),
        )
