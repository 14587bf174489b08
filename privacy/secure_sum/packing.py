"""A model update as one vector of words: the weighted change of every number, then the counts.

With weight ``w`` of at most ``cap`` patients, a hospital's vector is ::

    [ (w / cap) (x - x_global),  w,  patients,  events,  (w / cap) metrics ]

so that the sums give the weighted mean change ``cap sum((w / cap) (x - x_global)) / sum(w)`` and
nothing about one hospital, its counts and loss included.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from privacy.secure_sum.quantise import FixedPoint, WordArray
from protocol.arrays import Arrays, Layout
from protocol.errors import PrivacyError

__all__ = ["COUNTS", "METRICS", "Packed", "Packing"]

FloatArray = npt.NDArray[np.float64]
COUNTS = ("weight", "num_patients", "num_events")
METRICS = ("loss",)
COUNT_GRID = FixedPoint(0, 32)
METRIC_GRID = FixedPoint(16, 32)


@dataclass(frozen=True)
class Packed:
    """What a vector, or a sum of vectors, stands for.

    Attributes
    ----------
    update : dict
        float64 arrays by name: ``sum (w / cap) (x - x_global)``.
    counts : dict
        Whole numbers by `COUNTS`.
    metrics : dict
        ``sum (w / cap) metric`` by `METRICS`.
    """

    update: Arrays
    counts: dict[str, int]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Packing:
    """Where what stands in the vector of a model.

    Attributes
    ----------
    layout : Layout
        Of the global model; arrays stand in the order of their names.
    step_bits : int
        Of the update.
    num_hospitals : int
        How many vectors are added at most.
    """

    layout: Layout
    step_bits: int
    num_hospitals: int

    @property
    def grid(self) -> FixedPoint:
        return FixedPoint(self.step_bits, 32)

    @property
    def num_parameters(self) -> int:
        return sum(_size(shape) for shape, _ in self.layout.values())

    @property
    def num_words(self) -> int:
        return self.num_parameters + len(COUNTS) + len(METRICS)

    def flat(self, arrays: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]) -> FloatArray:
        """Return ``arrays - base`` as one vector, float64."""
        parts = [
            np.subtract(arrays[name], base[name], dtype=np.float64).reshape(-1)
            for name in sorted(self.layout)
        ]
        return np.concatenate(parts)

    def pack(
        self,
        change: FloatArray,
        share: float,
        counts: Mapping[str, int],
        metrics: Mapping[str, float],
    ) -> WordArray:
        """Return a hospital's vector.

        Parameters
        ----------
        change : float array
            From `flat`.
        share : float
            ``w / cap`` in [0, 1].

        Raises
        ------
        PrivacyError
            If the weight is above the cap, or a number is beyond what the sum can carry.
        """
        if not 0 <= share <= 1:
            raise PrivacyError(
                f"This hospital weighs {share:g} times the largest weight that was registered, "
                "expected 1 at most; repeat the survey if its cohort has changed."
            )
        n = self.num_hospitals
        told = np.array([metrics.get(name, 0.0) for name in METRICS])
        return np.concatenate(
            [
                self.grid.encode(change * share, n, "The update"),
                COUNT_GRID.encode([counts[name] for name in COUNTS], n, "A count"),
                METRIC_GRID.encode(told * share, n, "A metric"),
            ]
        )

    def unpack(self, total: WordArray) -> Packed:
        """Return what a sum of vectors stands for."""
        body, rest = total[: self.num_parameters], total[self.num_parameters :]
        counts = COUNT_GRID.decode(rest[: len(COUNTS)])
        metrics = METRIC_GRID.decode(rest[len(COUNTS) :])
        return Packed(
            self.arrays(self.grid.decode(body)),
            {name: int(value) for name, value in zip(COUNTS, counts, strict=True)},
            dict(zip(METRICS, metrics.tolist(), strict=True)),
        )

    def arrays(self, flat: FloatArray) -> Arrays:
        """Return a vector as the arrays of the model, float64."""
        names = sorted(self.layout)
        ends = np.cumsum([0, *(_size(self.layout[name].shape) for name in names)])
        return {
            name: flat[start:stop].reshape(self.layout[name].shape)
            for name, (start, stop) in zip(names, pairwise(ends), strict=True)
        }


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
