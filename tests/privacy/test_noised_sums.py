"""Noised sums: the bound of every row, the noise that is added, and what is refused."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from privacy.discrete_gaussian import Below
from privacy.noised_sums import (
    FINENESS,
    Block,
    clamped,
    noised_sums,
    one_cell,
    squared_sensitivity,
)
from protocol.errors import PrivacyError


def seeded() -> Below:
    return random.Random(3).randrange  # noqa: S311 - the same draws in every run


def test_every_value_there_is_stays_within_the_bound_of_its_row() -> None:
    unit = np.arange(-FINENESS, FINENESS + 1) / FINENESS
    block = clamped(unit[:, None], [(-1.0, 1.0)])
    lengths = (block.rows**2).sum(axis=1)
    assert lengths.max() == block.squared_bound == FINENESS**2 * 5 // 4


@given(
    st.lists(
        st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3), min_size=1, max_size=5
    )
)
def test_no_patient_adds_more_than_is_stated(values: list[tuple[float, ...]]) -> None:
    block = clamped(np.array(values), [(0, 1), (-5, 1e6), (18, 95)])
    assert ((block.rows**2).sum(axis=1) <= block.squared_bound).all()
    assert block.squared_bound == 3 * FINENESS**2 * 5 // 4


@given(st.lists(st.integers(-3, 6), min_size=1, max_size=20), st.integers(1, 3))
def test_a_patient_fills_one_cell_at_most(cells: list[int], weight: int) -> None:
    block = one_cell(cells, 7, weight)
    assert ((block.rows != 0).sum(axis=1) <= 1).all()
    assert ((block.rows**2).sum(axis=1) <= block.squared_bound).all()
    assert block.squared_bound == (weight * FINENESS) ** 2


def test_with_next_to_no_noise_the_sums_are_the_sums() -> None:
    values = np.array([[20.0, np.nan], [50.0, 2.0], [200.0, 4.0]])
    blocks = {"count": one_cell([0, 1, 1], 3), "values": clamped(values, [(0, 100), (0, 4)])}
    told = noised_sums(blocks, 1e-4, seeded())
    assert np.rint(told["count"]).tolist() == [1, 2, 0]
    # Missing; u = 2 (x - low) / width - 1 with 200 clamped to 100; u^2 - 1/2.
    expected = [0, 1, -0.6 + 0 + 1, 0 + 1, 0.36 + 0 + 1 - 1.5, 0 + 1 - 1]
    assert told["values"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_the_noise_is_the_multiplier_times_the_sensitivity(noise: float) -> None:
    blocks = {"a": one_cell([0], 1500), "b": one_cell([0], 1500, 2)}
    assert squared_sensitivity(blocks) == 5 * FINENESS**2
    told = noised_sums(blocks, noise, seeded())
    for name, weight in (("a", 1), ("b", 2)):
        spread = np.delete(told[name], 0).std()
        assert spread == pytest.approx(noise * np.sqrt(5), rel=0.08), weight


def test_the_noise_is_never_less_than_the_ledger_is_told(monkeypatch) -> None:
    asked = []

    def law(variance, count, below):
        asked.append(variance)
        return np.zeros(count, np.int64)

    monkeypatch.setattr("privacy.noised_sums.discrete_gaussian", law)
    for noise in (0.1, 1 / 3, 2.7182818):
        noised_sums({"a": one_cell([0], 2)}, noise)
        assert asked[-1] >= (noise * FINENESS) ** 2 and asked[-1] - (noise * FINENESS) ** 2 < 1.001


def test_a_row_beyond_its_bound_is_refused_before_anything_is_told() -> None:
    rows = np.full((1, 2), FINENESS)
    with pytest.raises(PrivacyError, match="One patient adds more to the sums 'x' than"):
        noised_sums({"x": Block(rows, FINENESS**2)}, 1.0)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_is_a_number_above_0(noise: float) -> None:
    with pytest.raises(PrivacyError, match=r"statistics_noise is .*, expected a number above 0"):
        noised_sums({"a": one_cell([0], 1)}, noise)


def test_sums_of_one_answer_are_of_the_same_patients() -> None:
    with pytest.raises(PrivacyError, match="over different patients"):
        noised_sums({"a": one_cell([0], 1), "b": one_cell([0, 0], 1)}, 1.0)


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf"))])
def test_a_range_is_finite_and_rises(limits: tuple[float, float]) -> None:
    with pytest.raises(PrivacyError, match="without a finite public range"):
        clamped([[1.0]], [limits])


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_discrete_law_is_as_private_as_the_accountant_takes_it_for(noise: float) -> None:
    """Delta of epsilon by its definition, beside the Gaussian's (Balle & Wang 2018, eq. 6)."""
    sd = noise * FINENESS
    places = np.arange(-int(12 * sd) - FINENESS, int(12 * sd) + FINENESS)
    with_patient, without = (np.exp(-((places - m) ** 2) / (2 * sd**2)) for m in (FINENESS, 0))
    for epsilon in (0.1 / noise, 1 / noise, 3 / noise):
        over = np.maximum(with_patient - np.exp(epsilon) * without, 0).sum()
        discrete = over / np.exp(-(places**2) / (2 * sd**2)).sum()
        half, shift = 1 / (2 * noise), epsilon * noise
        continuous = norm.cdf(half - shift) - np.exp(epsilon) * norm.cdf(-half - shift)
        assert discrete == pytest.approx(continuous, rel=1e-5)
