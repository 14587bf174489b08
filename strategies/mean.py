"""The weighted mean of models, folded as they come.

With ``W_k = w_1 + ... + w_k``::

    m_1 = x_1,    m_k = m_{k-1} - (m_{k-1} - x_k) * w_k / W_k

which is ``sum(w x) / sum(w)`` without ever holding more than the mean and two models
(West 1979, "Updating mean and variance estimates", Comm. ACM 22:532). The update is written as a
subtraction so that equal models leave the mean unchanged to the bit: the difference is +0.0, and
``m - 0.0`` is ``m`` even for ``m = -0.0``, where ``m + 0.0`` would lose the sign.

It takes longer to fetch the numbers than to add them. So a model waits for the next one, and both
are added, one after the other, to a piece of the mean that is fetched and written once.
"""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from protocol.arrays import Arrays
from protocol.errors import PayloadError

__all__ = ["RunningMean", "accumulator_dtype"]

# Elements folded at once: all passes over four pieces of 768 KiB stay in the caches, and the
# scratch space is one block instead of one model. Smaller blocks cost more calls than they save.
BLOCK = 196_608
# Elements one thread folds before it takes more; a smaller model is not worth a second thread.
SPAN = 4 * BLOCK
MAX_THREADS = 4
# Models added in one passage; each but the last of them is kept until then.
TOGETHER = 2


def accumulator_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype the mean is kept in: float32, or float64 for float64 and integers."""
    return np.dtype(np.float32 if dtype in (np.float16, np.float32) else np.float64)


@dataclass(frozen=True)
class _Waiting:
    """A model and the part of the way to it that the mean goes, ``w_k / W_k``."""

    arrays: Arrays
    ratio: float


# A piece of the mean, and the same piece of each model that is added.
Part = tuple[np.ndarray, list[np.ndarray]]


def _parts(mean: Arrays, models: list[Arrays]) -> Iterator[Part]:
    """Yield the mean and the models in flat pieces of at most `SPAN` elements, as views."""
    for name, array in mean.items():
        flat_mean = array.reshape(-1)
        flats = [np.ascontiguousarray(model[name]).reshape(-1) for model in models]
        for start in range(0, flat_mean.size, SPAN):
            yield flat_mean[start : start + SPAN], [flat[start : start + SPAN] for flat in flats]


def _fold(part: Part, ratios: list[float]) -> None:
    """Set ``mean -= (mean - array) * ratio`` in place for each array, block by block."""
    mean, arrays = part
    scratch = np.empty(min(BLOCK, mean.size), mean.dtype)
    factors = [mean.dtype.type(ratio) for ratio in ratios]
    for start in range(0, mean.size, BLOCK):
        block = mean[start : start + BLOCK]
        step = scratch[: block.size]
        for array, factor in zip(arrays, factors, strict=True):
            np.subtract(block, array[start : start + BLOCK], out=step)
            np.multiply(step, factor, out=step)
            np.subtract(block, step, out=block)


def _fold_all(mean: Arrays, waiting: list[_Waiting]) -> None:
    """Fold models in; threads share no element, so their number is irrelevant to the bit."""
    models, ratios = [each.arrays for each in waiting], [each.ratio for each in waiting]
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    if threads == 1 or sum(array.size for array in mean.values()) <= SPAN:
        for part in _parts(mean, models):
            _fold(part, ratios)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(_fold, part, ratios) for part in _parts(mean, models)]:
            done.result()


class RunningMean:
    """The mean so far. Floats are added in the order of the calls, so call in a fixed order.

    Attributes
    ----------
    total_weight : float
        Sum of the weights added.
    """

    def __init__(self) -> None:
        self.total_weight = 0.0
        self._arrays: Arrays = {}
        self._waiting: list[_Waiting] = []

    def add(self, arrays: Arrays, weight: float) -> None:
        """Fold in one model, which is only read, and may not change before the mean is taken.

        Parameters
        ----------
        arrays : Arrays
            Same names and shapes as every other model added (the caller has checked).
        weight : float
            Greater than 0.

        Raises
        ------
        PayloadError
            If the weight is not a finite number above 0.
        """
        if not (math.isfinite(weight) and weight > 0):
            raise PayloadError(f"A weight is {weight}, expected above 0; leave such a site out.")
        first = self.total_weight == 0
        self.total_weight += weight
        if first:
            self._arrays = {
                name: array.astype(accumulator_dtype(array.dtype), order="C")
                for name, array in arrays.items()
            }
            return
        self._waiting.append(_Waiting(arrays, weight / self.total_weight))
        if len(self._waiting) == TOGETHER:
            self._fold_waiting()

    def take(self) -> Arrays:
        """Return the mean and forget it, so that no second copy is kept.

        Returns
        -------
        Arrays
            float32, or float64 where the models hold float64 or integers.

        Raises
        ------
        PayloadError
            If nothing was added.
        """
        if self.total_weight == 0:
            raise PayloadError("There is no mean of no models; add one first.")
        self._fold_waiting()
        arrays, self._arrays, self.total_weight = self._arrays, {}, 0.0
        return arrays

    def _fold_waiting(self) -> None:
        _fold_all(self._arrays, self._waiting)
        self._waiting = []
