"""Count, mean and spread of named variables."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["Moments"]


@dataclass(frozen=True, eq=False)
class Moments(Sums):
    """Per variable: how many values, how many missing, mean, and sum of squared deviations.

    Squared deviations from the own mean are kept instead of the sum of squares, whose difference
    from the squared mean loses every digit when the mean is large beside the spread. Two parts are
    joined by Chan, Golub & LeVeque 1983, eq. 1.5: ``M2 = M2_a + M2_b + d^2 n_a n_b / n``, ``d =
    mean_b - mean_a``.

    Attributes
    ----------
    names : tuple of str, length V
        What is measured, unit included where there is one (``"age"`` of the data dictionary).
    n, missing : int array (V,)
        Patients with and without a value.
    mean, squares : float array (V,)
        Mean, and sum of squared deviations from it; 0 where n is 0.
    """

    names: tuple[str, ...]
    n: IntArray
    missing: IntArray
    mean: FloatArray
    squares: FloatArray

    def _check(self) -> None:
        shape = (len(self.names),)
        for array in (self.n, self.missing, self.mean, self.squares):
            require(array.shape == shape, "Moments: every array needs one entry a name.")
        require(bool((self.squares >= 0).all()), "Moments: squared deviations are never negative.")

    @classmethod
    def empty(cls, names: tuple[str, ...]) -> Self:
        """Return the moments of no patient."""
        counts, sums = np.zeros(len(names), np.int64), np.zeros(len(names))
        return cls(tuple(names), counts, counts, sums, sums)

    @classmethod
    def of(cls, names: tuple[str, ...], values: npt.ArrayLike) -> Self:
        """Return the moments of one hospital's patients.

        Parameters
        ----------
        names : tuple of str, length V
        values : float array (N, V)
            One row a patient; nan is missing.
        """
        table = np.asarray(values, dtype=np.float64)
        table = table.reshape(len(table), len(names))
        known = ~np.isnan(table)
        n = known.sum(axis=0)
        mean = np.where(known, table, 0.0).sum(axis=0) / np.maximum(n, 1)
        deviation = np.where(known, table - mean, 0.0)
        return cls(tuple(names), n, len(table) - n, mean, (deviation**2).sum(axis=0))

    def merge(self, other: Self) -> Self:
        """Join the moments of two sets of patients; both must name the same variables."""
        require(self.names == other.names, "Moments of different variables cannot be added.")
        n = self.n + other.n
        total = np.maximum(n, 1)
        difference = other.mean - self.mean
        # n * mean / n is not always mean to the last bit, so nobody must not be averaged in.
        mean = (self.n * self.mean + other.n * other.mean) / total
        mean = np.where(other.n == 0, self.mean, np.where(self.n == 0, other.mean, mean))
        squares = self.squares + other.squares + difference**2 * self.n * other.n / total
        return type(self)(self.names, n, self.missing + other.missing, mean, squares)

    @property
    def sd(self) -> FloatArray:
        """Sample standard deviation (n - 1) per variable; nan below two values."""
        spread = np.sqrt(self.squares / np.maximum(self.n - 1, 1))
        return np.where(self.n > 1, spread, np.nan)

    def index(self, name: str) -> int:
        """Return the position of a variable.

        Raises
        ------
        PayloadError
            If the variable is not among the names.
        """
        require(name in self.names, f"Moments hold no '{name}'; they hold {', '.join(self.names)}.")
        return self.names.index(name)

    def suppressed(self, min_cell: int) -> Self:
        """Return moments in which every count of patients is a multiple of ``min_cell``.

        A variable known in fewer than ``min_cell`` patients is emptied. Otherwise n and missing are
        rounded to the nearest multiple, because a missing count of 1 .. k-1 could else be had from
        n and the number of patients; mean and sd stay exact.
        """
        if min_cell <= 1:
            return self
        kept = self.n >= min_cell
        n = np.where(kept, _nearest_multiple(self.n, min_cell), 0)
        missing = np.where(kept, _nearest_multiple(self.missing, min_cell), 0)
        squares = np.where(
            kept, self.squares / np.maximum(self.n - 1, 1) * np.maximum(n - 1, 0), 0.0
        )
        return type(self)(self.names, n, missing, np.where(kept, self.mean, 0.0), squares)


def _nearest_multiple(counts: IntArray, step: int) -> IntArray:
    return (counts + step // 2) // step * step
