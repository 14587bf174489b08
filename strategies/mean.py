"""The weighted mean of models, folded one model at a time.

With ``W_k = w_1 + ... + w_k``::

    m_1 = x_1,    m_k = m_{k-1} - (m_{k-1} - x_k) * w_k / W_k

which is ``sum(w x) / sum(w)`` without ever holding more than the mean and the model being added
(West 1979, "Updating mean and variance estimates", Comm. ACM 22:532). The update is written as a
subtraction so that equal models leave the mean unchanged to the bit: the difference is +0.0, and
``m - 0.0`` is ``m`` even for ``m = -0.0``, where ``m + 0.0`` would lose the sign.
"""

import math

import numpy as np

from protocol.arrays import Arrays
from protocol.errors import PayloadError

__all__ = ["RunningMean", "accumulator_dtype"]

# Elements folded at once: three passes over 256 KiB stay in the processor's cache, and the
# scratch space is one block instead of one model.
BLOCK = 65_536


def accumulator_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype the mean is kept in: float32, or float64 for float64 and integers."""
    return np.dtype(np.float32 if dtype in (np.float16, np.float32) else np.float64)


def _fold(mean: np.ndarray, array: np.ndarray, ratio: float, scratch: np.ndarray) -> None:
    """Set ``mean -= (mean - array) * ratio`` in place, block by block."""
    flat_mean, flat = mean.reshape(-1), np.ascontiguousarray(array).reshape(-1)
    factor = mean.dtype.type(ratio)
    for start in range(0, flat.size, BLOCK):
        block = flat_mean[start : start + BLOCK]
        step = scratch[: block.size].view(mean.dtype)[: block.size]
        np.subtract(block, flat[start : start + BLOCK], out=step)
        np.multiply(step, factor, out=step)
        np.subtract(block, step, out=block)


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

    def add(self, arrays: Arrays, weight: float) -> None:
        """Fold in one model, which is only read.

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
        scratch = np.empty(BLOCK, dtype=np.float64)
        for name, mean in self._arrays.items():
            _fold(mean, arrays[name], weight / self.total_weight, scratch)

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
        arrays, self._arrays, self.total_weight = self._arrays, {}, 0.0
        return arrays
