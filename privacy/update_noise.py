"""Noise for whole vectors of whole numbers: the discrete Gaussian, many draws at a time.

``P(x) = exp(-x^2 / (2 s^2)) / Z`` over all whole numbers, by the rejection of Canonne, Kamath &
Steinke 2020 (The Discrete Gaussian for Differential Privacy, NeurIPS; algorithm 3), vectorised. The
coins it throws have a probability rounded to 2^-53 and come from the operating system's generator,
so that the law is the exact one to within 2^-50 a draw; a model has half a million numbers, too
many for the whole-number arithmetic that serves the few of a survey.
"""

import math
import secrets
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["RandomBytes", "discrete_gaussian_vector"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
RandomBytes = Callable[[int], bytes]
"""Returns so many random bytes."""

# Drawn at a time, to bound memory.
BLOCK = 2**17
LARGEST_SD = 2.0**40


def discrete_gaussian_vector(
    sd: float, count: int, random_bytes: RandomBytes = secrets.token_bytes
) -> IntArray:
    """Return independent draws, int64 (count,), of mean 0.

    Parameters
    ----------
    sd : float
        The parameter s, in (0, 2^40]; from 1 on the standard deviation to within 1e-6 of itself.
    random_bytes : callable
        Source of randomness; the operating system's unless a test brings another.

    Raises
    ------
    ValueError
        If the standard deviation is out of range.
    """
    if not 0 < sd <= LARGEST_SD:
        raise ValueError(f"the noise has a standard deviation of {sd:g}, expected 0 to 2^40")
    done, parts = 0, [np.empty(0, np.int64)]
    while done < count:
        kept = _attempt(sd, min(BLOCK, 2 * (count - done) + 64), random_bytes)
        parts.append(kept[: count - done])
        done += parts[-1].size
    return np.concatenate(parts)


def _uniform(count: int, random_bytes: RandomBytes) -> FloatArray:
    """Return multiples of 2^-53 in [0, 1)."""
    words = np.frombuffer(random_bytes(8 * count), "<u8")
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)


def _attempt(sd: float, count: int, random_bytes: RandomBytes) -> IntArray:
    """Draw from the discrete Laplace of scale t and keep what the Gaussian would."""
    scale = math.floor(sd) + 1
    # |y| of a discrete Laplace is geometric: P(|y| >= k) = exp(-k / t), so invert it.
    size = np.floor(-scale * np.log1p(-_uniform(count, random_bytes)))
    negative = _uniform(count, random_bytes) < 0.5
    # Zero has one sign: it would come twice as often otherwise.
    once = ~(negative & (size == 0))
    exponent = (size - sd * sd / scale) ** 2 / (2 * sd * sd)
    kept = once & (_uniform(count, random_bytes) < np.exp(-exponent))
    return np.where(negative, -size, size)[kept].astype(np.int64)
