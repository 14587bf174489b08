"""The vectorised discrete Gaussian has the law it is named after."""

import numpy as np
import pytest
from scipy.stats import chisquare

from privacy.update_noise import discrete_gaussian_vector

COUNT = 60_000


def source(seed: int):
    return np.random.default_rng(seed).bytes


@pytest.mark.parametrize("sd", [0.4, 1.0, 2.7, 11.0])
def test_frequencies_are_those_of_the_law(sd: float) -> None:
    drawn = discrete_gaussian_vector(sd, COUNT, source(int(10 * sd)))
    reach = int(np.ceil(6 * sd))
    x = np.arange(-reach, reach + 1)
    law = np.exp(-(x**2) / (2 * sd**2))
    law /= law.sum()
    common = law * COUNT >= 8
    seen = np.array([(drawn == value).sum() for value in x])
    rest = COUNT - seen[common].sum()
    expected = np.append(law[common] * COUNT, (1 - law[common].sum()) * COUNT)
    assert chisquare(np.append(seen[common], rest), expected).pvalue > 1e-4


@pytest.mark.parametrize("sd", [1.0, 1e3, 1e6])
def test_the_moments_are_those_of_the_law(sd: float) -> None:
    drawn = discrete_gaussian_vector(sd, COUNT, source(7)).astype(float)
    assert abs(drawn.mean()) < 5 * sd / np.sqrt(COUNT)
    assert drawn.std() == pytest.approx(sd, rel=0.02)
    assert (drawn**4).mean() / sd**4 == pytest.approx(3.0, rel=0.06)


def test_it_draws_anew_each_time_and_takes_its_bytes_from_the_system() -> None:
    first, second = (discrete_gaussian_vector(1e4, 1000) for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2 and not np.array_equal(first, second)
    assert discrete_gaussian_vector(3.0, 0).shape == (0,)


@pytest.mark.parametrize("sd", [0.0, -1.0, np.nan, 2.0**41])
def test_a_standard_deviation_out_of_range_is_refused(sd: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        discrete_gaussian_vector(sd, 3)
