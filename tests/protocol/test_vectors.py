"""A statistic as a vector: adding vectors is merging statistics."""

import numpy as np
import pytest

from protocol.errors import PayloadError
from protocol.stats.cox import CoxSums
from protocol.stats.cox_residuals import CoxResiduals
from protocol.stats.moments import Moments
from protocol.stats.sums import Sums, merge_all
from protocol.stats.vectors import from_vector, to_vector

NAMES, BETA = ("age", "sex missing"), np.array([0.25, -1.5])


def sums(seed: int) -> CoxSums:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(2, 2))
    events = int(rng.integers(1, 50))
    return CoxSums(
        NAMES, ("efron",), BETA, events + 9, events, 1, float(events), -3.5, rng.normal(size=2),
        half @ half.T, seed % 2,
    )  # fmt: skip


def residuals(seed: int) -> CoxResiduals:
    rng = np.random.default_rng(seed)
    half, events = rng.normal(size=(2, 2)), int(rng.integers(1, 50))
    return CoxResiduals(
        NAMES, BETA, ("log",), events + 9, events, half @ half.T, float(events), 2.5, 9.0,
        rng.normal(size=2), rng.normal(size=2), 0.125, 0,
    )  # fmt: skip


@pytest.mark.parametrize("make", [sums, residuals])
def test_the_sum_of_the_vectors_is_the_vector_of_the_sum(make) -> None:
    parts: list[Sums] = [make(seed) for seed in range(4)]
    total = np.sum([to_vector(part) for part in parts], axis=0)
    nobody = from_vector(parts[0], np.zeros_like(total))
    found = from_vector(nobody, total)
    merged = merge_all(parts)
    assert found.num_patients == merged.num_patients and type(found.num_events) is int
    np.testing.assert_allclose(to_vector(found), to_vector(merged), rtol=1e-14)
    assert np.array_equal(found.beta, BETA) and found.names == NAMES


def test_a_vector_of_another_length_or_an_impossible_one_is_refused() -> None:
    one = sums(3)
    vector = to_vector(one)
    with pytest.raises(PayloadError, match="longer than the statistic"):
        from_vector(one, np.append(vector, 0.0))
    with pytest.raises(PayloadError, match="shorter than the statistic"):
        from_vector(one, vector[:-1])
    with pytest.raises(PayloadError, match="more events than patients"):
        from_vector(one, np.where(np.arange(vector.size) == 1, 1e6, vector))


def test_a_statistic_whose_merge_is_not_known_to_add_is_refused() -> None:
    moments = Moments.of(("x",), np.ones((6, 1)))
    with pytest.raises(PayloadError, match="Moments cannot travel in a secure sum"):
        to_vector(moments)
