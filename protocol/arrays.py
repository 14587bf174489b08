"""Named arrays: what a model is between the hospitals and the centre.

A model is a plain dict from the network's own state names to numpy arrays. This file knows its
layout, whether its numbers can be used, and its fingerprint; how it travels is `protocol.records`.
"""

import hashlib
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from protocol.errors import PayloadError

__all__ = [
    "MAX_MAGNITUDE",
    "ArraySpec",
    "Arrays",
    "Layout",
    "check_finite",
    "check_layout",
    "dtype_name",
    "fingerprint",
    "layout",
]

Arrays = dict[str, np.ndarray]

# No trained weight comes near it, and squares of differences of such numbers (server Adam) still
# fit a float32, so that one finite but absurd reply cannot turn the mean into infinity.
MAX_MAGNITUDE = 1e9


class ArraySpec(NamedTuple):
    """Shape and dtype name of one array, e.g. ``((16, 1, 3, 3), "float32")``."""

    shape: tuple[int, ...]
    dtype: str


Layout = dict[str, ArraySpec]


@lru_cache(maxsize=64)
def dtype_name(dtype: np.dtype) -> str:
    """Return e.g. ``"float32"``; numpy derives the name anew each time, which shows in a round."""
    return str(dtype.name)


def layout(arrays: Arrays) -> Layout:
    """Return the shape and dtype of every array, in the order of the dict."""
    return {name: ArraySpec(array.shape, dtype_name(array.dtype)) for name, array in arrays.items()}


def _first_difference(found: Layout, expected: Layout) -> str | None:
    for name in expected:
        if name not in found:
            return f"array '{name}' is missing"
    for name in found:
        if name not in expected:
            return f"array '{name:.200}' is not part of the model"
    for name, spec in expected.items():
        if found[name].shape != spec.shape:
            return f"array '{name}' has shape {found[name].shape}, expected {spec.shape}"
        if found[name].dtype != spec.dtype:
            return f"array '{name}' is {found[name].dtype}, expected {spec.dtype}"
    return None


def check_layout(arrays: Arrays, expected: Layout, where: str) -> None:
    """Refuse arrays that are not exactly the expected names, shapes and dtypes, in any order.

    Parameters
    ----------
    where : str
        Whose arrays these are, for the sentence, e.g. ``"The reply of site A"``.

    Raises
    ------
    PayloadError
        Naming the first difference: missing, then unexpected, then shape, then dtype. Shapes that
        numpy would broadcast, such as (1,), are refused too.
    """
    problem = _first_difference(layout(arrays), expected)
    if problem is not None:
        raise PayloadError(
            f"{where}: {problem}; both ends must run the same version and the same study."
        )


def _surely_within(array: np.ndarray, limit: float) -> bool:
    """Say that no number is beyond ``limit`` or not finite; False may mean anything.

    Sums of numbers that are not negative never fall by rounding, so the sum of the squares is at
    least the largest of them; one NaN or infinity makes it one.
    """
    if array.dtype not in (np.float32, np.float64):
        return False
    flat = array.reshape(-1)
    with np.errstate(all="ignore"):
        square = float(np.dot(flat, flat))
    return square < math.inf and math.sqrt(square) <= limit / 2


def check_finite(arrays: Arrays, where: str, limit: float = MAX_MAGNITUDE) -> None:
    """Refuse arrays with a NaN, an infinity, or a magnitude above ``limit``.

    The extrema are enough (a NaN wins every comparison in numpy's reductions) and, unlike
    ``isfinite``, need no mask as large as the model. Where the sum of the squares already shows
    that nothing is amiss, which is several times as fast, they are not looked for.

    Raises
    ------
    PayloadError
        Naming the first such array and what it holds.
    """
    for name, array in arrays.items():
        if array.size == 0 or _surely_within(array, limit):
            continue
        with np.errstate(invalid="ignore"):
            low, high = float(array.min()), float(array.max())
        if math.isnan(low) or math.isnan(high):
            problem = "a NaN"
        elif math.isinf(low) or math.isinf(high):
            problem = "an infinite value"
        elif max(-low, high) > limit:
            problem = f"a value beyond {limit:g}"
        else:
            continue
        raise PayloadError(
            f"{where}: array '{name}' holds {problem}; look for a diverged training run there "
            "and lower the learning rate."
        )


def fingerprint(arrays: Arrays) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes, whatever the order of the dict.

    Two models have the same fingerprint exactly when they are equal to the bit (so 0.0 and -0.0
    differ).
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        # Length-prefixed, so that no choice of names can imitate another model's bytes.
        head = f"{len(name)}:{name}|{array.dtype.str}|{arrays[name].shape}|"
        digest.update(head.encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
