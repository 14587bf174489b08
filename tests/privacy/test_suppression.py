"""Small-cell suppression: what may be told, and that nothing told gives away what is not."""

from itertools import product

import pytest

from privacy.suppression import suppress_count, suppress_counts


@pytest.mark.parametrize(("count", "told"), [(0, 0), (1, None), (4, None), (5, 5), (6, 6)])
def test_counts_of_one_to_four_are_withheld(count: int, told: int | None) -> None:
    assert suppress_count(count, 5) == told


def test_every_told_cell_is_true_and_no_small_one_is_told() -> None:
    for cells in product(range(0, 12, 2), repeat=3):
        counts = dict(zip("abc", cells, strict=True))
        for group, told in suppress_counts(counts, 5).items():
            assert told is None or (told == counts[group] and (told == 0 or told >= 5))


def test_withheld_cells_cannot_be_found_by_subtraction() -> None:
    for cells in product(range(13), repeat=3):
        counts = dict(zip("abc", cells, strict=True))
        told = suppress_counts(counts, 5)
        hidden = [group for group, count in told.items() if count is None]
        if hidden:
            assert len(hidden) >= 2
            rest = sum(counts.values()) - sum(count or 0 for count in told.values())
            # Every split of the rest over the hidden cells remains possible.
            assert rest >= 5 or len(hidden) == len(counts)


def test_a_small_cell_takes_the_smallest_other_with_it() -> None:
    told = suppress_counts({"siemens": 40, "ge": 3, "philips": 9}, 5)
    assert told == {"siemens": 40, "ge": None, "philips": None}


def test_without_a_known_total_only_the_small_cell_is_withheld() -> None:
    told = suppress_counts({"siemens": 40, "ge": 3}, 5, total_known=False)
    assert told == {"siemens": 40, "ge": None}


def test_a_single_small_group_withholds_the_whole_table() -> None:
    assert suppress_counts({"siemens": 3, "ge": 0}, 5) == {"siemens": None, "ge": None}
    assert suppress_counts({}, 5) == {}


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 0 and 1"):
        suppress_count(-1, 5)
