"""Histogram of a score on fixed bins, from which common cut points are agreed."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.cells import spread
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["Histogram", "risk_group"]


@dataclass(frozen=True, eq=False)
class Histogram(Sums):
    """Patients per bin of equal width.

    Attributes
    ----------
    low, high : float
        Window of the score; values beyond it stand in the end bins.
    counts : float array (B,)
        Patients; fractions after `suppressed`.
    """

    low: float
    high: float
    counts: FloatArray

    def _check(self) -> None:
        require(self.low < self.high, "Histogram: low must be below high.")
        require(self.counts.ndim == 1 and self.counts.size > 0, "Histogram: one row of bins.")
        require(bool((self.counts >= 0).all()), "Histogram: counts are never negative.")

    @classmethod
    def empty(cls, lo: float = 0.0, hi: float = 1.0, num_bins: int = 100) -> Self:
        """Return the histogram of no patient."""
        return cls(float(lo), float(hi), np.zeros(num_bins))

    @classmethod
    def of(
        cls, values: npt.ArrayLike, lo: float = 0.0, hi: float = 1.0, num_bins: int = 100
    ) -> Self:
        """Count one hospital's scores, one value a patient; a nan is left out."""
        require(lo < hi, "Histogram: low must be below high.")
        scores = np.asarray(values, dtype=np.float64).ravel()
        scores = scores[~np.isnan(scores)]
        bins = np.clip(np.floor((scores - lo) / (hi - lo) * num_bins), 0, num_bins - 1)
        counts = np.bincount(bins.astype(np.intp), minlength=num_bins).astype(np.float64)
        return cls(float(lo), float(hi), counts)

    def merge(self, other: Self) -> Self:
        """Add two histograms on the same bins."""
        same = (self.low, self.high, self.counts.size) == (other.low, other.high, other.counts.size)
        require(same, "Histograms on different bins cannot be added.")
        return type(self)(self.low, self.high, self.counts + other.counts)

    def quantile(self, q: float) -> float:
        """Return the score below which a share ``q`` of the patients lies, linear within a bin.

        Raises
        ------
        PayloadError
            If the histogram is empty or q lies outside [0, 1].
        """
        total = float(self.counts.sum())
        require(total > 0, "The histogram is empty; no hospital sent a score.")
        require(0 <= q <= 1, "A quantile lies in [0, 1].")
        reached = np.cumsum(self.counts)
        index = int(np.searchsorted(reached, q * total, side="left"))
        index = min(index, int(np.flatnonzero(self.counts)[-1]))
        index = max(index, int(np.flatnonzero(self.counts)[0]))
        inside = (q * total - (reached[index] - self.counts[index])) / self.counts[index]
        width = (self.high - self.low) / self.counts.size
        return self.low + width * (index + min(max(float(inside), 0.0), 1.0))

    def cuts(self, num_groups: int) -> tuple[float, ...]:
        """Return the ``num_groups`` - 1 inner cut points of groups of equal size."""
        return tuple(self.quantile(group / num_groups) for group in range(1, num_groups))

    def suppressed(self, min_cell: int) -> Self:
        """Return the histogram with small bins spread over larger cells (see `cells.spread`)."""
        return type(self)(
            self.low, self.high, spread(np.rint(self.counts).astype(np.int64), min_cell)
        )


def risk_group(values: npt.ArrayLike, cuts: tuple[float, ...]) -> npt.NDArray[np.intp]:
    """Return each value's group 0 .. len(cuts): a value equal to a cut point falls above it."""
    return np.searchsorted(np.asarray(cuts), np.asarray(values, dtype=np.float64), side="right")
