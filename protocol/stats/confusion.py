"""How often each class was taken for each, as counts that add."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.sums import IntArray, Sums, require

__all__ = ["ConfusionSums"]


@dataclass(frozen=True, eq=False)
class ConfusionSums(Sums):
    """A confusion matrix.

    Attributes
    ----------
    classes : tuple of str, length C
    counts : int array (C, C)
        Records by reference (rows) and prediction (columns).
    """

    classes: tuple[str, ...]
    counts: IntArray

    def _check(self) -> None:
        size = len(self.classes)
        require(
            self.counts.shape == (size, size) and bool((self.counts >= 0).all()),
            "ConfusionSums: expected one count >= 0 for each pair of classes.",
        )

    @classmethod
    def empty(cls, classes: Sequence[str]) -> Self:
        """Return the counts of no record."""
        return cls(tuple(classes), np.zeros((len(classes), len(classes)), np.int64))

    @classmethod
    def of(cls, classes: Sequence[str], reference: npt.ArrayLike, predicted: npt.ArrayLike) -> Self:
        """Count records.

        Parameters
        ----------
        reference, predicted : int array (N,)
            Indices into ``classes``.
        """
        size = len(classes)
        rows, columns = (np.asarray(v, np.int64).ravel() for v in (reference, predicted))
        require(rows.shape == columns.shape, "ConfusionSums: two arrays of different lengths.")
        inside = all(bool(((v >= 0) & (v < size)).all()) for v in (rows, columns))
        require(inside, "ConfusionSums: an index names no class.")
        counts = np.bincount(rows * size + columns, minlength=size * size)
        return cls(tuple(classes), counts.reshape(size, size).astype(np.int64))

    def merge(self, other: Self) -> Self:
        """Add the counts of two sets of records."""
        require(self.classes == other.classes, "Confusion of different classes cannot be added.")
        return type(self)(self.classes, self.counts + other.counts)

    @property
    def n(self) -> int:
        """Records counted."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Share of records on the diagonal, in [0, 1], higher is better; NaN without a record."""
        return float(np.trace(self.counts) / self.n) if self.n else float("nan")

    def suppressed(self, min_cell: int) -> Self:
        """Return counts rounded to multiples of ``min_cell``: none points at a single record."""
        if min_cell <= 1:
            return self
        rounded = (self.counts + min_cell // 2) // min_cell * min_cell
        return type(self)(self.classes, rounded.astype(np.int64))
