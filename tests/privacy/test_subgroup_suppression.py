"""Which groups of a partition may be judged apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.suppression import withheld_groups

COUNTS = st.dictionaries(
    st.integers(0, 8),
    st.integers(0, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    max_size=6,
)


@given(counts=COUNTS, min_cell=st.integers(2, 8))
def test_neither_a_told_group_nor_what_subtraction_leaves_is_small(
    counts: dict[int, tuple[int, int]], min_cell: int
) -> None:
    hidden = withheld_groups(counts, min_cell)
    told = [row for group, row in counts.items() if group not in hidden and row[0]]
    assert all(min(row) >= min_cell for row in told)
    if hidden and told:
        assert len(hidden) >= 2
        assert sum(counts[group][0] for group in hidden) >= min_cell
        assert sum(counts[group][1] for group in hidden) >= min_cell
    assert all(counts[group][0] for group in hidden)


@given(counts=COUNTS)
def test_a_minimum_of_one_withholds_nothing(counts: dict[int, tuple[int, int]]) -> None:
    assert withheld_groups(counts, 1) == set()


def test_large_groups_are_all_told() -> None:
    assert withheld_groups({"a": (9, 5), "b": (20, 7), "none": (0, 0)}, 5) == set()


def test_a_small_group_takes_the_smallest_other_with_it() -> None:
    # b has 4 events; a and c would do as its company, and c is the smaller.
    assert withheld_groups({"a": (50, 20), "b": (30, 4), "c": (12, 6)}, 5) == {"b", "c"}


def test_that_nobody_in_a_group_had_the_event_is_not_told() -> None:
    assert withheld_groups({"a": (50, 20), "b": (30, 0), "c": (12, 6)}, 5) == {"b", "c"}


def test_company_is_sought_until_every_count_is_large_enough() -> None:
    # a and b are small and together have 3 events; c has to join them.
    assert withheld_groups({"a": (4, 1), "b": (9, 2), "c": (20, 8), "d": (30, 9)}, 5) == {
        "a",
        "b",
        "c",
    }


def test_two_groups_of_which_one_is_small_are_both_withheld() -> None:
    assert withheld_groups({"a": (4, 4), "b": (90, 40)}, 5) == {"a", "b"}


@pytest.mark.parametrize("counts", [{"a": (-1, 0)}, {"a": (3, 4)}])
def test_impossible_counts_are_refused(counts: dict) -> None:
    with pytest.raises(ValueError, match="are not possible"):
        withheld_groups(counts, 5)
