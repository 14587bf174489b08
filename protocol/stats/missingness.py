"""How often covariates are missing, 0 or the same, so that defects of one hospital show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.sums import IntArray, Sums, require

__all__ = ["Missingness"]


@dataclass(frozen=True, eq=False)
class Missingness(Sums):
    """Counts per covariate.

    Attributes
    ----------
    names : tuple of str, length V
    patients : int
    missing, zeros : int array (V,)
        Patients without a value, and with the value 0.
    constant, binary : int array (V,)
        Hospitals in which every known value is the same; in which every one is 0 or 1.
    """

    names: tuple[str, ...]
    patients: int
    missing: IntArray
    zeros: IntArray
    constant: IntArray
    binary: IntArray

    def _check(self) -> None:
        shape = (len(self.names),)
        for array in (self.missing, self.zeros, self.constant, self.binary):
            require(array.shape == shape, "Missingness: every array needs one entry a name.")
        require(
            bool((self.missing + self.zeros <= self.patients).all()),
            "Missingness: more values missing or 0 than there are patients.",
        )

    @classmethod
    def empty(cls, names: Sequence[str]) -> Self:
        """Return the counts of no patient."""
        none = np.zeros(len(names), np.int64)
        return cls(tuple(names), 0, none, none, none, none)

    @classmethod
    def of(cls, names: Sequence[str], values: npt.ArrayLike) -> Self:
        """Count one hospital's patients.

        Parameters
        ----------
        values : float array (N, V)
            One row a patient; nan is missing.
        """
        table = np.asarray(values, np.float64)
        table = table.reshape(len(table), len(names))
        known = ~np.isnan(table)
        present = known.sum(axis=0) > 0
        low = np.where(known, table, np.inf).min(axis=0, initial=np.inf)
        high = np.where(known, table, -np.inf).max(axis=0, initial=-np.inf)
        flags = np.isin(table, (0.0, 1.0)) | ~known
        return cls(
            tuple(names),
            len(table),
            (~known).sum(axis=0).astype(np.int64),
            (table == 0).sum(axis=0).astype(np.int64),
            (present & (low == high)).astype(np.int64),
            (present & flags.all(axis=0)).astype(np.int64),
        )

    def merge(self, other: Self) -> Self:
        """Add the counts of two hospitals; both must name the same covariates."""
        require(self.names == other.names, "Missingness of different covariates cannot be added.")
        return type(self)(
            self.names,
            self.patients + other.patients,
            self.missing + other.missing,
            self.zeros + other.zeros,
            self.constant + other.constant,
            self.binary + other.binary,
        )

    def suppressed(self, min_cell: int) -> Self:
        """Return counts that are multiples of ``min_cell``, without what few known values show.

        A hospital of fewer than ``min_cell`` patients becomes empty. Whether the known values are
        the same or 0 or 1 is told only of covariates known in at least ``min_cell`` patients.
        """
        if min_cell <= 1:
            return self
        if self.patients < min_cell:
            return self.empty(self.names)

        def rounded(counts: IntArray) -> IntArray:
            return np.asarray((counts + min_cell // 2) // min_cell * min_cell, np.int64)

        enough = self.patients - self.missing >= min_cell
        patients = int(rounded(np.array(self.patients)))
        missing = np.minimum(np.where(enough, rounded(self.missing), patients), patients)
        zeros = np.minimum(np.where(enough, rounded(self.zeros), 0), patients - missing)
        return type(self)(
            self.names,
            patients,
            missing,
            zeros,
            np.where(enough, self.constant, 0),
            np.where(enough, self.binary, 0),
        )
