"""The rules at their limits, and the proof of the smallest group tried on every possible lie."""

import itertools

import pytest

from privacy.secure_sum.rules import (
    check_cohort,
    check_opening,
    least_threshold,
    smallest_group,
)
from protocol.errors import PrivacyError

ABC = ("a", "b", "c")
TEN = tuple("abcdefghij")


@pytest.mark.parametrize(("number", "least"), [(3, 3), (4, 3), (5, 4), (6, 5), (10, 7), (30, 21)])
def test_the_threshold_is_above_two_thirds(number: int, least: int) -> None:
    assert least_threshold(number) == least
    assert 3 * least > 2 * number >= 3 * (least - 1)


@pytest.mark.parametrize(
    ("cohort", "threshold", "minimum", "said"),
    [
        (("a", "b"), 2, 3, "sum of 2 hospitals was asked for, .* sums of 3 or more"),
        (("a", "b"), 2, 1, "sums of 3 or more"),
        (("a", "b", "c", "d"), 3, 5, "sums of 5 or more"),
        (("a", "b", "c", "z"), 3, 3, "z is to take part .* no fingerprint"),
        (("a", "b", "b", "c"), 3, 3, "not named once each"),
        (("b", "a", "c"), 3, 3, "not named once each"),
        (("b", "c", "d"), 3, 3, "not named once each"),
        (("a", "b", "c", "d"), 2, 3, "threshold of 2 of 4 hospitals .* expected 3 to 4"),
        (("a", "b", "c", "d"), 5, 3, "threshold of 5"),
        (("a", "b", "c", "d"), 3, 4, "threshold of 3 of 4 hospitals .* expected 4 to 4"),
    ],
)
def test_a_cohort_that_is_too_small_strange_or_weak_is_refused(
    cohort: tuple[str, ...], threshold: int, minimum: int, said: str
) -> None:
    with pytest.raises(PrivacyError, match=said):
        check_cohort(cohort, "a", threshold, {"b", "c", "d"}, minimum)


def test_a_cohort_at_the_limits_is_accepted() -> None:
    check_cohort(ABC, "a", 3, {"b", "c"}, 3)
    check_cohort(("a", "b", "c", "d"), "a", 3, {"b", "c", "d"}, 3)


@pytest.mark.parametrize(
    ("active", "dropped", "said"),
    [
        (TEN, ("j",), "j is active and has dropped out"),
        (TEN[:6], TEN[6:], "6 hospitals are left .* expected 7 or more"),
        (TEN[:8], ("i",), "names other hospitals"),
        (TEN[:8], ("i", "i"), "names other hospitals"),
        ((*TEN[:8], "z"), ("i",), "names other hospitals"),
        (TEN[1:], ("a",), "this hospital dropped out"),
        ((*TEN[:7], "a"), TEN[7:], "names other hospitals"),
    ],
)
def test_a_story_that_cannot_be_true_is_refused(
    active: tuple[str, ...], dropped: tuple[str, ...], said: str
) -> None:
    with pytest.raises(PrivacyError, match=said):
        check_opening(TEN, "a", 7, active, dropped)


def test_three_of_ten_may_have_dropped() -> None:
    check_opening(TEN, "a", 7, TEN[:7], TEN[7:])
    check_opening(TEN, "a", 7, TEN, ())


def smallest_opened(number: int, threshold: int, colluding: int) -> int:
    """Try every set of stories a lying centre can tell, and return the smallest group it opens."""
    honest = range(number - colluding)
    stories = []
    for me in honest:
        others = [v for v in range(number) if v != me]
        stories.append(
            [
                frozenset((me, *chosen))
                for size in range(threshold - 1, number)
                for chosen in itertools.combinations(others, size)
            ]
        )
    needed, smallest = threshold - colluding, number
    for told in itertools.product(*stories):
        selfless = [u for u in honest if sum(u in story for story in told) >= needed]
        for size in range(1, min(smallest, len(selfless) + 1)):
            for group in itertools.combinations(selfless, size):
                outside = [u for u in honest if u not in group]
                # From v's deposit: those who were told that v is active and u dropped.
                fallen = all(
                    sum(v in story and u not in story for story in told) >= needed
                    for v in group
                    for u in outside
                )
                if fallen:
                    smallest = size
                    break
            if smallest <= size:
                break
    return smallest


@pytest.mark.parametrize(
    ("number", "threshold", "colluding"), [(3, 3, 0), (4, 3, 0), (5, 4, 0), (4, 3, 1), (5, 4, 1)]
)
def test_no_lie_opens_a_smaller_group_than_proven(
    number: int, threshold: int, colluding: int
) -> None:
    proven = smallest_group(number, threshold, colluding)
    assert proven >= 1
    assert smallest_opened(number, threshold, colluding) >= proven


def test_the_search_finds_the_lie_where_the_threshold_is_too_low() -> None:
    assert smallest_opened(4, 2, 1) == 1 and smallest_group(4, 2, 1) == 0


def test_what_ten_hospitals_are_promised() -> None:
    assert [smallest_group(10, 7, c) for c in range(5)] == [6, 5, 4, 2, 0]
    assert smallest_group(3, 3) == 3
