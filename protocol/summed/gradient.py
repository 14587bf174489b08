"""The gradient of a network as one statistic, and back."""

from itertools import pairwise

import numpy as np

from protocol.arrays import Arrays, Layout
from protocol.stats.gradient_sums import GradientSums

__all__ = ["no_gradient", "to_arrays", "to_gradient"]


def no_gradient(shapes: Layout) -> GradientSums:
    """Return the share of nobody."""
    size = sum(_size(shapes, name) for name in shapes)
    return GradientSums(tuple(sorted(shapes)), np.zeros(size), 0, 0, 0.0)


def to_gradient(arrays: Arrays, num_patients: int, num_events: int, loss: float) -> GradientSums:
    """Return a hospital's share.

    Parameters
    ----------
    arrays : Arrays
        By the names of the parameters.
    loss : float
        Sum over the events.
    """
    names = tuple(sorted(arrays))
    flat = np.concatenate([np.asarray(arrays[name], np.float64).reshape(-1) for name in names])
    return GradientSums(names, flat, num_patients, num_events, loss)


def to_arrays(gradient: GradientSums, shapes: Layout) -> Arrays:
    """Return a gradient as arrays of the network's shapes, float64."""
    ends = np.cumsum([0, *(_size(shapes, name) for name in gradient.names)])
    return {
        name: gradient.values[start:stop].reshape(shapes[name].shape)
        for name, (start, stop) in zip(gradient.names, pairwise(ends), strict=True)
    }


def _size(shapes: Layout, name: str) -> int:
    return int(np.prod(shapes[name].shape, dtype=np.int64))
