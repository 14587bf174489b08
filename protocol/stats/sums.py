"""What every mergeable statistic shares: sums that are added, checked, and written as JSON.

A metric of this project is a frozen dataclass of sums over patients. A hospital builds it from its
own arrays, the centre adds the hospitals' values in a fixed order, and every mean, interval or
curve is computed from the total, so that the pooled figure is that of the pooled patients and never
an average of averages.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

from protocol.errors import PayloadError

__all__ = ["FloatArray", "IntArray", "Sums", "merge_all", "require"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def require(condition: bool, sentence: str) -> None:
    """Raise a `PayloadError` with ``sentence`` unless ``condition`` holds."""
    if not condition:
        raise PayloadError(sentence)


class Sums(ABC):
    """A mergeable statistic; subclasses are frozen dataclasses declared with ``eq=False``.

    Fields are ``int`` (a count, never negative), ``float``, ``IntArray``, ``FloatArray``, tuples of
    ``str`` or ``float`` that say what is counted, or another `Sums`.
    """

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                frozen = value.copy()
                frozen.setflags(write=False)
                object.__setattr__(self, field.name, frozen)
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Raise a `PayloadError` unless the fields have matching shapes and possible values."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """Return the statistic of both sets of patients.

        Counts add exactly, so their order is irrelevant to the bit; sums of floats are added as
        ``self + other``, so the caller keeps one order (`merge_all`).

        Raises
        ------
        PayloadError
            If the two do not count the same thing on the same grid.
        """

    def __add__(self, other: Self) -> Self:
        return self.merge(other)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers that ``json.dumps`` writes without loss."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
            If a key is missing or unknown, a number is not finite, a count is not a whole number of
            at least 0, or the shapes do not match.
        """
        require(isinstance(values, dict), f"{cls.__name__} must be an object; send its to_dict().")
        hints = get_type_hints(cls)
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        wrong = sorted(set(names) ^ set(values))
        if wrong:
            state = "unknown" if wrong[0] in values else "missing"
            raise PayloadError(
                f"{cls.__name__}: key '{str(wrong[0])[:40]}' is {state}; it has {', '.join(names)}."
            )
        return cls(
            **{name: _parse(values[name], hints[name], f"{cls.__name__}.{name}") for name in names}
        )


S = TypeVar("S", bound=Sums)


def merge_all(parts: Sequence[S]) -> S:
    """Add statistics from left to right; the caller's order fixes the floats to the bit.

    Raises
    ------
    PayloadError
        If there is nothing to add or two parts do not match.
    """
    require(len(parts) > 0, "There is nothing to add; pass the sums of at least one hospital.")
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total


def _plain(value: Any) -> Any:
    if isinstance(value, Sums):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return list(value)
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parse(value: Any, hint: Any, place: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, Sums):
        return hint.from_dict(value)
    if hint is int:
        require(_is_count(value), f"{place} must be a whole number of at least 0.")
        return value
    if hint is float:
        require(_is_real(value), f"{place} must be a finite number.")
        return float(value)
    require(isinstance(value, list), f"{place} must be a list.")
    if hint == tuple[str, ...]:
        require(all(isinstance(item, str) for item in value), f"{place} must hold text.")
        return tuple(value)
    if hint == tuple[float, ...]:
        require(all(_is_real(item) for item in value), f"{place} must hold finite numbers.")
        return tuple(float(item) for item in value)
    return _parse_array(value, hint == IntArray, place)


def _parse_array(value: list[Any], whole: bool, place: str) -> Any:
    accepts = _is_count if whole else _is_real
    what = "whole numbers of at least 0" if whole else "finite numbers"

    def leaves_are_right(item: Any) -> bool:
        return all(map(leaves_are_right, item)) if isinstance(item, list) else accepts(item)

    require(leaves_are_right(value), f"{place} must hold {what}.")
    try:
        return np.array(value, dtype=np.int64 if whole else np.float64)
    except ValueError as error:
        raise PayloadError(f"{place} has rows of unequal length; send a full table.") from error
