"""The sampler against the closed form of the law it claims to draw from."""

import inspect
import math
import random
import secrets
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chi2, norm

from privacy import discrete_gaussian as module
from privacy.discrete_gaussian import discrete_gaussian

DRAWS = 6000


def pmf(variance: float, reach: int) -> dict[int, float]:
    """Return the probabilities by their definition, exp(-x^2 / (2 s^2)) over the sum of all."""
    weights = {x: math.exp(-(x**2) / (2 * variance)) for x in range(-reach, reach + 1)}
    total = math.fsum(weights.values())
    return {x: weight / total for x, weight in weights.items()}


SOURCE = random.Random(5)  # noqa: S311 - the same draws in every run


def drawn(variance: Fraction) -> np.ndarray:
    SOURCE.seed(5)
    return discrete_gaussian(variance, DRAWS, SOURCE.randrange)


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(1), Fraction(22, 7), Fraction(25)])
def test_the_draws_follow_the_law(variance: Fraction) -> None:
    law = pmf(float(variance), 60)
    seen = Counter(drawn(variance).tolist())
    common = [x for x, p in law.items() if p * DRAWS >= 5]
    rare = DRAWS - sum(seen[x] for x in common)
    expected_rare = DRAWS * (1 - sum(law[x] for x in common))
    statistic = sum((seen[x] - DRAWS * law[x]) ** 2 / (DRAWS * law[x]) for x in common)
    statistic += (rare - expected_rare) ** 2 / max(expected_rare, 1)
    assert chi2.sf(statistic, len(common)) > 0.01


def test_the_same_test_sees_a_variance_a_tenth_too_small() -> None:
    law = pmf(25.0, 60)
    seen = Counter(drawn(Fraction(45, 2)).tolist())
    common = [x for x, p in law.items() if p * DRAWS >= 5]
    statistic = sum((seen[x] - DRAWS * law[x]) ** 2 / (DRAWS * law[x]) for x in common)
    assert chi2.sf(statistic, len(common) - 1) < 1e-3


@pytest.mark.parametrize("variance", [1, 9, 10_000, 12 * 1024**2])
def test_the_variance_is_the_parameter(variance: int) -> None:
    values = drawn(Fraction(variance)).astype(float)
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / DRAWS))
    assert abs(values.mean()) < 5 * math.sqrt(variance / DRAWS)
    if variance < 100:
        exact = sum(x**2 * p for x, p in pmf(variance, 60).items())
        assert exact == pytest.approx(variance, rel=1e-6)


def test_a_wide_law_is_the_normal_one() -> None:
    values = np.sort(drawn(Fraction(10**6)).astype(float)) / 1000
    steps = np.arange(1, DRAWS + 1) / DRAWS
    # Kolmogorov's bound at 1 %.
    assert np.abs(norm.cdf(values) - steps).max() < 1.63 / math.sqrt(DRAWS)


def test_only_whole_numbers_are_asked_and_given() -> None:
    asked: list[object] = []
    SOURCE.seed(1)

    def below(limit: int) -> int:
        asked.append(limit)
        return SOURCE.randrange(limit)

    values = discrete_gaussian(Fraction(7, 3), 50, below)
    assert values.dtype == np.int64 and values.shape == (50,)
    assert all(type(limit) is int and limit >= 1 for limit in asked)
    text = inspect.getsource(module)
    assert "float" not in text.split('"""', 2)[2] and "numpy.random" not in text


def test_unless_a_test_brings_another_the_system_is_the_source() -> None:
    default = inspect.signature(discrete_gaussian).parameters["below"].default
    assert default == secrets.randbelow
    assert (
        discrete_gaussian(Fraction(10**8), 5).tolist()
        != discrete_gaussian(Fraction(10**8), 5).tolist()
    )


def test_without_a_variance_there_is_no_noise_to_draw() -> None:
    with pytest.raises(ValueError, match="variance of the noise is 0, expected a number above 0"):
        discrete_gaussian(Fraction(0), 1)
