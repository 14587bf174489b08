"""Noise that is exact: whole numbers drawn from the discrete Gaussian, in integer arithmetic only.

A float cannot hold a normal variate; which floats can come out depends on the sum they were added
to, and the low bits of a "noised" float can give the sum away (Mironov, CCS 2012). So sums are
whole numbers here, and their noise is drawn from ``P(x) = exp(-x^2 / (2 s^2)) / Z`` over all whole
numbers x by rejection, from uniform whole numbers, without a rounding anywhere: Canonne, Kamath &
Steinke, The Discrete Gaussian for Differential Privacy, NeurIPS 2020, algorithms 1 to 3.

Sums with an L2 sensitivity of D and noise of variance ``(z D)^2`` satisfy ``1 / (2 z^2)``
concentrated differential privacy, to the digit what the continuous Gaussian mechanism of noise
multiplier z satisfies (ibid., theorem 4).
"""

import secrets
from collections.abc import Callable
from fractions import Fraction
from math import isqrt

import numpy as np

from protocol.stats.sums import IntArray

__all__ = ["Below", "discrete_gaussian"]

Below = Callable[[int], int]
"""Draws a uniform whole number from 0 up to its argument, that excluded."""


def discrete_gaussian(variance: Fraction, count: int, below: Below = secrets.randbelow) -> IntArray:
    """Return independent draws, int64 (count,), of mean 0.

    Parameters
    ----------
    variance : Fraction
        The parameter ``s^2`` of the law, above 0. From ``s = 1`` on it is the variance to within
        1e-6 of itself.
    below : callable
        Source of uniform whole numbers; the operating system's own unless a test brings another.

    Raises
    ------
    ValueError
        If the variance is not above 0.
    """
    if variance <= 0:
        raise ValueError(f"the variance of the noise is {variance}, expected a number above 0")
    return np.array([_gaussian(variance, below) for _ in range(count)], dtype=np.int64)


def _gaussian(variance: Fraction, below: Below) -> int:
    """Algorithm 3: a discrete Laplace draw y, kept with ``exp(-(|y| - s^2 / t)^2 / (2 s^2))``."""
    top, bottom = variance.numerator, variance.denominator
    scale = isqrt(top // bottom) + 1
    while True:
        drawn = _laplace(scale, below)
        distance = abs(drawn) * scale * bottom - top
        if _happens(distance * distance, 2 * top * bottom * scale * scale, below):
            return drawn


def _laplace(scale: int, below: Below) -> int:
    """Algorithm 2 with s = 1: ``P(x)`` falls by ``exp(-1 / scale)`` with each step from 0."""
    while True:
        inside = below(scale)
        if not _happens(inside, scale, below):
            continue
        whole = 0
        while _happens(1, 1, below):
            whole += 1
        size = inside + scale * whole
        negative = below(2) == 1
        # Zero has one sign: it would come twice as often otherwise.
        if not (negative and size == 0):
            return -size if negative else size


def _happens(top: int, bottom: int, below: Below) -> bool:
    """Algorithm 1: return True with probability ``exp(-top / bottom)``, ``top >= 0``."""
    while top > bottom:
        if not _at_most_one(1, 1, below):
            return False
        top -= bottom
    return _at_most_one(top, bottom, below)


def _at_most_one(top: int, bottom: int, below: Below) -> bool:
    """The same for ``0 <= top <= bottom``: ``sum_k (-g)^k / k!`` as a run of coin throws."""
    throws = 1
    while below(bottom * throws) < top:
        throws += 1
    return throws % 2 == 1
