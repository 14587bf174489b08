"""The bound of the one-run audit: the paper's figures, its limits, and known mechanisms."""

import math

import numpy as np
import pytest
from scipy import stats

from privacy.audit.one_run import (
    audit_one_run,
    binomial_masses,
    epsilon_lower_bound,
    guess,
    guess_p_value,
)


@pytest.mark.parametrize(("trials", "chance"), [(0, 0.5), (1, 0.3), (50, 0.75), (1510, 0.93)])
def test_binomial_masses_are_scipys(trials: int, chance: float) -> None:
    expected = stats.binom.pmf(np.arange(trials + 1), trials, chance)
    np.testing.assert_allclose(binomial_masses(trials, chance), expected, rtol=1e-9, atol=1e-300)


# Appendix D (page 46) and section 7 (page 28) of arXiv:2305.08846; the paper rounds one, cuts one.
@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "printed"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_the_papers_figures(
    canaries: int, guesses: int, correct: int, delta: float, printed: float
) -> None:
    found = epsilon_lower_bound(canaries, guesses, correct, delta, 0.95)
    assert found == pytest.approx(printed, abs=1e-3)


# Half of the canaries guessed and all right, 99 %, delta 1e-5: no audit can claim more.
@pytest.mark.parametrize(
    ("canaries", "largest"), [(50, 1.59), (100, 2.33), (200, 3.04), (500, 3.95), (1000, 4.62)]
)
def test_the_largest_bound_that_can_be_reached(canaries: int, largest: float) -> None:
    half = canaries // 2
    assert epsilon_lower_bound(canaries, half, half, 1e-5) == pytest.approx(largest, abs=6e-3)
    q = 0.01 ** (1 / half)
    exact = epsilon_lower_bound(canaries, half, half, 0.0)
    assert exact == pytest.approx(math.log(q / (1 - q)), rel=1e-9)


def test_the_bound_grows_with_right_guesses_and_falls_with_delta() -> None:
    bounds = [epsilon_lower_bound(100, 50, right, 1e-5) for right in range(51)]
    assert bounds == sorted(bounds)
    assert bounds[25] == 0
    by_delta = [epsilon_lower_bound(100, 50, 48, delta) for delta in (0, 1e-6, 1e-4, 1e-2)]
    assert by_delta == sorted(by_delta, reverse=True)
    assert by_delta[-1] == 0


def test_without_a_guess_nothing_is_refuted() -> None:
    assert guess_p_value(10, 0, 0, 0.0, 0.0) == 1
    assert epsilon_lower_bound(10, 0, 0, 1e-5) == 0
    assert epsilon_lower_bound(10**4, 10**3, 10**3, 0.0) < 64


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="each must be at most the next"):
        guess_p_value(10, 5, 6, 1.0, 0.0)
    with pytest.raises(ValueError, match="delta 1"):
        guess_p_value(10, 5, 5, 1.0, 1.0)
    with pytest.raises(ValueError, match="confidence 1"):
        epsilon_lower_bound(10, 5, 5, 0.0, 1.0)
    with pytest.raises(ValueError, match="too many"):
        guess(np.zeros(3), 4)


def test_guesses_take_both_ends() -> None:
    scores = np.array([0.3, 5.0, -2.0, 0.1, 4.0])
    assert guess(scores, 3).tolist() == [0, 1, -1, 0, 1]
    assert guess(scores, 0).tolist() == [0] * 5
    found = audit_one_run(scores, np.array([0, 1, 1, 0, 1], bool), delta=0.0, num_guesses=3)
    assert (found.num_guesses, found.num_correct, found.epsilon_lower) == (3, 2, 0.0)
    assert not found.refutes(0.0)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_randomised_response_is_not_accused(epsilon: float) -> None:
    # Every coin is told truly with q = e^epsilon / (1 + e^epsilon): pure epsilon-DP, and the worst
    # case of the theorem, so the bound may exceed epsilon in one run of a hundred and no more.
    rng = np.random.default_rng(7)
    q, runs, wrong, bounds = 1 / (1 + math.exp(-epsilon)), 1000, 0, []
    memory: dict[int, float] = {}
    for _ in range(runs):
        included = rng.random(100) < 0.5
        told = np.where(rng.random(100) < q, included, ~included)
        scores = told + 0.1 * rng.random(100)
        right = audit_counts(scores, included)
        if right not in memory:
            memory[right] = epsilon_lower_bound(100, 50, right, 0.0)
        bounds.append(memory[right])
        wrong += memory[right] > epsilon
    assert wrong <= stats.binom.ppf(0.999, runs, 0.01)
    # It is not idle either.
    assert np.mean(bounds) > 0.05 * epsilon


def audit_counts(scores: np.ndarray, included: np.ndarray) -> int:
    """Return the right guesses of the half that is guessed."""
    guesses = guess(scores, len(scores) // 2)
    return int((guesses == np.where(included, 1, -1)).sum())


def test_gaussian_noise_of_known_epsilon_is_not_accused() -> None:
    # One release with sensitivity 1: (epsilon, delta) from Balle and Wang, ICML 2018, theorem 8.
    delta, sigma = 1e-5, 4.0
    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        a, b = 1 / (2 * sigma), middle * sigma
        reached = stats.norm.cdf(a - b) - math.exp(middle) * stats.norm.cdf(-a - b)
        low, high = (middle, high) if reached > delta else (low, middle)
    rng = np.random.default_rng(3)
    for _ in range(200):
        included = rng.random(100) < 0.5
        scores = included + sigma * rng.standard_normal(100)
        assert not audit_one_run(scores, included, delta=delta).refutes(high)
