"""A mergeable statistic as one vector, where merging is adding, so that a secure sum can carry it.

The fields that count or sum (``int``, ``float``, arrays) stand one after the other; those that say
what is counted (tuples, and the arrays a class names as labels) do not travel: everybody knows them
from the question. It serves every class of `Sums` whose ``merge`` adds all its numbers; one that
takes a maximum somewhere, as the risk sets of a grid do, it does not.
"""

from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from protocol.stats.cox import CoxSums
from protocol.stats.cox_residuals import CoxResiduals
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["LABELS", "from_vector", "to_vector"]

# By class, the arrays that are equal at all hospitals and not added.
LABELS: dict[type[Sums], frozenset[str]] = {
    CoxSums: frozenset({"beta"}),
    CoxResiduals: frozenset({"beta"}),
}
S = TypeVar("S", bound=Sums)


def _summed(sums: Sums) -> list[tuple[str, Any]]:
    labels = LABELS.get(type(sums))
    require(
        labels is not None, f"{type(sums).__name__} cannot travel in a secure sum; ask it plainly."
    )
    named = [(field.name, getattr(sums, field.name)) for field in fields(sums)]  # type: ignore[arg-type]
    return [
        (name, value)
        for name, value in named
        if not isinstance(value, tuple) and name not in (labels or ())
    ]


def to_vector(sums: Sums) -> FloatArray:
    """Return all that is added, float64.

    Raises
    ------
    PayloadError
        If the class is not in `LABELS`.
    """
    parts = [np.asarray(value, np.float64).reshape(-1) for _, value in _summed(sums)]
    return np.concatenate(parts)


def from_vector(template: S, vector: FloatArray) -> S:
    """Return a statistic of the template's labels and the vector's numbers.

    Parameters
    ----------
    template : Sums
        E.g. that of no patient.

    Raises
    ------
    PayloadError
        If the length differs, or the numbers are not possible ones of the class.
    """
    values: dict[str, Any] = {}
    start = 0
    for name, value in _summed(template):
        size = int(np.size(value))
        part = vector[start : start + size]
        require(part.size == size, "A secure sum is shorter than the statistic it stands for.")
        if isinstance(value, np.ndarray):
            values[name] = np.rint(part) if value.dtype.kind == "i" else part
            values[name] = values[name].reshape(value.shape).astype(value.dtype)
        else:
            values[name] = type(value)(round(part[0]) if isinstance(value, int) else part[0])
        start += size
    require(start == vector.size, "A secure sum is longer than the statistic it stands for.")
    return type(template)(**vars(template) | values)
