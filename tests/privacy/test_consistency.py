"""Counts that fit together: nearest, whole, and in multiples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from privacy.consistency import in_multiples, nearest_table, whole_counts

entries = st.lists(st.floats(-50, 50), min_size=1, max_size=8)


@given(entries, st.floats(0, 100))
def test_the_table_is_possible_and_adds_up(noised: list[float], total: float) -> None:
    found = nearest_table(noised, total)
    assert (found >= 0).all() and found.sum() == pytest.approx(total, abs=1e-6)
    assert whole_counts(found).sum() == int(np.rint(found.sum()))


def test_no_other_table_is_nearer() -> None:
    noised, total = np.array([3.0, -2.0, 0.5, 7.0, 1.0]), 6.0
    found = nearest_table(noised, total)
    best = minimize(
        lambda x: ((x - noised) ** 2).sum(),
        np.full(5, total / 5),
        bounds=[(0, None)] * 5,
        constraints={"type": "eq", "fun": lambda x: x.sum() - total},
        method="SLSQP",
    )
    assert found == pytest.approx(best.x, abs=1e-5)
    # By hand: 7 - t + 3 - t = 6 at t = 2, which leaves the others nothing.
    assert found.tolist() == [1.0, 0.0, 0.0, 5.0, 0.0]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_counts_that_fit_stay_as_they_are(counts: list[int]) -> None:
    assert nearest_table(counts, sum(counts)) == pytest.approx(counts, abs=1e-9)
    assert whole_counts(counts).tolist() == counts
    assert in_multiples(counts, 1).tolist() == counts


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 9))
def test_no_small_count_is_left_and_few_patients_move(counts: list[int], min_cell: int) -> None:
    told = in_multiples(counts, min_cell)
    assert (told >= 0).all() and (told % min_cell == 0).all()
    assert np.abs(np.cumsum(told) - np.cumsum(counts)).max() <= min_cell / 2


def test_largest_remainders_get_the_rest() -> None:
    assert whole_counts([0.6, 0.6, 0.8]).tolist() == [1, 0, 1]
