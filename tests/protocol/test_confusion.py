"""Confusion counts: laws, and a table worked by hand."""

import math

import numpy as np
import pytest

from protocol.errors import PayloadError
from protocol.stats.confusion import ConfusionSums

CLASSES = ("a", "b", "c")


def test_by_hand() -> None:
    sums = ConfusionSums.of(CLASSES, [0, 0, 1, 2, 2], [0, 1, 1, 2, 0])
    np.testing.assert_array_equal(sums.counts, [[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    assert sums.n == 5 and sums.accuracy == pytest.approx(3 / 5)
    assert math.isnan(ConfusionSums.empty(CLASSES).accuracy)


def test_pooled_is_the_sum_whatever_the_split() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, (2, 60))
    whole = ConfusionSums.of(CLASSES, truth, said)
    parts = [ConfusionSums.of(CLASSES, truth[i::3], said[i::3]) for i in range(3)]
    assert (parts[0] + parts[1]) + parts[2] == whole == parts[2] + (parts[1] + parts[0])
    assert whole + ConfusionSums.empty(CLASSES) == whole
    assert ConfusionSums.from_dict(whole.to_dict()) == whole


def test_no_count_points_at_a_single_record() -> None:
    sums = ConfusionSums.of(CLASSES, [0] * 12 + [1, 2, 2], [0] * 12 + [1, 2, 0])
    told = sums.suppressed(5).counts
    np.testing.assert_array_equal(told, [[10, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert sums.suppressed(1) == sums


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(PayloadError, match="an index names no class"):
        ConfusionSums.of(CLASSES, [3], [0])
    with pytest.raises(PayloadError, match="different classes"):
        ConfusionSums.empty(CLASSES).merge(ConfusionSums.empty(("a",)))
