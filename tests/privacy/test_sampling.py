"""Who joins a step, and with which slices."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from privacy.noise import NoiseSource
from privacy.sampling import draw_slices, poisson_sample


@pytest.fixture
def source(tmp_path: Path) -> NoiseSource:
    return NoiseSource(tmp_path / "noise.json")


def test_each_patient_joins_by_a_coin_of_their_own(source: NoiseSource) -> None:
    joined = np.zeros((2000, 20), dtype=bool)
    for step in range(len(joined)):
        rows = poisson_sample(20, 0.3, source)
        assert (np.diff(rows) > 0).all()
        joined[step, rows] = True
    assert stats.binomtest(int(joined.sum()), joined.size, 0.3).pvalue > 1e-6
    # The size is binomial, and not the constant of a shuffled list.
    sizes = joined.sum(axis=1)
    assert 0.85 < sizes.var() / (20 * 0.3 * 0.7) < 1.15
    off_diagonal = np.corrcoef(joined.T)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 6 / len(joined) ** 0.5


def test_a_step_may_be_empty_and_a_rate_of_one_takes_everybody(source: NoiseSource) -> None:
    sizes = {len(poisson_sample(3, 0.05, source)) for _ in range(100)}
    assert 0 in sizes
    assert poisson_sample(5, 1.0, source).tolist() == [0, 1, 2, 3, 4]
    assert poisson_sample(0, 0.5, source).tolist() == []


@pytest.mark.parametrize(("num_patients", "rate"), [(-1, 0.5), (3, 0.0), (3, 1.1)])
def test_impossible_rates_are_refused(source: NoiseSource, num_patients: int, rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        poisson_sample(num_patients, rate, source)


def test_slices_are_drawn_without_replacement_where_there_are_enough(source: NoiseSource) -> None:
    counts = np.array([12, 4, 3, 1])
    seen = np.zeros(12)
    for _ in range(500):
        drawn = draw_slices(counts, 4, source)
        assert drawn.shape == (4, 4)
        assert len(set(drawn[0])) == 4 and drawn[0].max() < 12
        assert sorted(drawn[1]) == [0, 1, 2, 3]
        # Three slices for four places: one comes twice, none is left out.
        assert sorted(np.bincount(drawn[2], minlength=3)) == [1, 1, 2]
        assert drawn[3].tolist() == [0, 0, 0, 0]
        np.add.at(seen, drawn[0], 1)
    # All slices alike.
    assert stats.chisquare(seen).pvalue > 1e-6


def test_nobody_is_drawn_from_nobody(source: NoiseSource) -> None:
    assert draw_slices(np.array([], dtype=np.int64), 4, source).shape == (0, 4)
    with pytest.raises(ValueError, match="slices"):
        draw_slices(np.array([3, 0]), 4, source)
