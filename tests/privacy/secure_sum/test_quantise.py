"""Whole steps: half a step off at most, sums exact, nothing wraps unseen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privacy.secure_sum.quantise import FixedPoint
from protocol.errors import PrivacyError

SMALL = FixedPoint(24, 32)
numbers = arrays(np.float64, 6, elements=st.floats(-12, 12))


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(4, 24))
def test_an_element_is_off_by_half_a_step_at_most(x: np.ndarray, bits: int) -> None:
    grid = FixedPoint(bits, 32)
    assert np.abs(grid.decode(grid.encode(x, 1, "x")) - x).max() <= grid.step / 2


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=10))
def test_a_sum_modulo_the_word_is_the_sum_of_the_rounded_numbers(parts: list[np.ndarray]) -> None:
    words = [SMALL.encode(x, 10, "x") for x in parts]
    rounded = np.sum([SMALL.decode(w) for w in words], axis=0)
    assert np.array_equal(SMALL.decode(np.sum(words, axis=0, dtype=np.uint32)), rounded)


def test_the_largest_numbers_of_all_hospitals_do_not_wrap_around() -> None:
    for grid in (SMALL, FixedPoint(36, 64), FixedPoint(0, 32)):
        for sign in (-1.0, 1.0):
            edge = np.array([sign * np.nextafter(grid.largest(7), 0)])
            words = grid.encode(edge, 7, "x")
            total = np.sum([words] * 7, axis=0, dtype=words.dtype)
            assert grid.decode(total) == pytest.approx(7 * edge, rel=1e-9)


def test_whole_numbers_stay_whole_to_the_digit() -> None:
    counts = np.array([0.0, 1, 12_345, 2**20])
    for grid in (SMALL, FixedPoint(36, 64)):
        inside = counts[counts <= grid.largest(3)]
        assert np.array_equal(grid.decode(grid.encode(inside, 3, "x")), inside)


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "a NaN"), (np.inf, "magnitude of inf"), (13.0, "magnitude of 13"), (-99.0, "of 99")],
)
def test_what_the_sum_cannot_carry_is_refused_at_the_hospital(value: float, said: str) -> None:
    with pytest.raises(PrivacyError, match=f"The update holds .*{said}.* carries up to 12.8"):
        SMALL.encode([0.0, value], 10, "The update")
