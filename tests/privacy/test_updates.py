"""Client-level privacy: bounds that hold, noise that is enough from the threshold on, epsilon."""

import math

import numpy as np
import pytest

from privacy.secure_sum.quantise import FixedPoint
from privacy.updates import (
    PrivateUpdates,
    clip,
    epsilon_after,
    next_clip_norm,
    zcdp_epsilon,
)
from protocol.errors import PrivacyError
from protocol.secure_config import AdaptiveClipping, UpdatePrivacy

GRID = FixedPoint(20, 32)
SIZE = 2000


def updates(**changes: object) -> PrivateUpdates:
    given = {"noise_multiplier": 1.5, "clip_norm": 0.5, **changes}
    parts = {key: given.pop(key) for key in ("num_hospitals", "threshold") if key in given}
    settings = UpdatePrivacy.model_validate(given)
    shape = {"num_hospitals": 10, "threshold": 7} | parts
    return PrivateUpdates(settings, GRID, size=SIZE, clip_norm=settings.clip_norm, **shape)


def test_clipping_bounds_the_norm_and_leaves_small_updates_alone() -> None:
    rng = np.random.default_rng(1)
    for scale in (1e-6, 0.01, 1.0, 1e8):
        change = rng.normal(0, scale, SIZE)
        clipped, within = clip(change, 0.5)
        assert np.linalg.norm(clipped) <= 0.5 * (1 + 1e-12)
        assert within == (np.linalg.norm(change) <= 0.5)
        if within:
            assert np.array_equal(clipped, change)
    assert np.array_equal(clip(np.zeros(3), 0.5)[0], np.zeros(3))
    with pytest.raises(PrivacyError, match="not finite"):
        clip(np.array([1.0, np.nan]), 0.5)


def test_one_hospital_moves_the_rounded_sum_by_the_sensitivity_at_most() -> None:
    private, rng = updates(), np.random.default_rng(2)
    for _ in range(200):
        change = rng.standard_cauchy(SIZE) * 10.0 ** rng.integers(-6, 6)
        clipped, _ = clip(change, private.clip_norm)
        share = rng.uniform()
        words = GRID.encode(clipped * share, 1, "x").view(np.int32)
        assert np.linalg.norm(words.astype(float)) <= private.sensitivity


def test_the_threshold_s_noise_alone_makes_the_noise_multiplier() -> None:
    private = updates()
    sums = private.noise_sd**2 * private.parts
    assert math.sqrt(sums) / private.sensitivity == pytest.approx(1.5, rel=1e-12)
    assert private.epsilon() == pytest.approx(1 / 1.5, rel=1e-12)
    # With two that tell the centre their noise, the others add more.
    wary = updates(colluding=2)
    assert wary.noise_sd == pytest.approx(private.noise_sd * math.sqrt(7 / 5))
    with pytest.raises(PrivacyError, match="nobody's noise"):
        updates(colluding=6, threshold=5, num_hospitals=6).epsilon()


def test_the_noise_of_a_sum_is_what_it_is_said_to_be() -> None:
    private = updates()
    source = np.random.default_rng(3).bytes
    zeros = np.zeros(SIZE)
    total = sum((private.pack(zeros, 1.0, source) for _ in range(7)), np.zeros(SIZE, np.uint32))
    mean, within = private.unpack(total, 7)
    assert within is None
    assert (7 * mean).std() == pytest.approx(1.5 * private.sensitivity * GRID.step, rel=0.05)


def test_the_sum_of_discrete_gaussians_is_charged_for_not_being_one() -> None:
    # With wide noise nothing; with noise of half a step much.
    assert zcdp_epsilon(100.0, 50.0, 4, 1000) == pytest.approx(1.0, rel=1e-12)
    assert zcdp_epsilon(1.0, 0.5, 4, 1000) > 1.1
    # One part is a discrete Gaussian itself.
    assert zcdp_epsilon(1.0, 0.5, 1, 1000) == pytest.approx(2.0)


def test_epsilon_is_above_the_exact_gaussian_s_and_not_far() -> None:
    from scipy.optimize import brentq
    from scipy.stats import norm

    def exact(mu: float, delta: float) -> float:
        # Balle & Wang 2018, theorem 8.
        def gap(eps: float) -> float:
            upper = norm.cdf(mu / 2 - eps / mu)
            return float(upper - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu) - delta)

        return float(brentq(gap, 0, 200))

    for rounds, per_round, delta in ((1, 0.5, 1e-5), (20, 0.2, 1e-3), (50, 1.0, 1e-5)):
        mine = epsilon_after(rounds, per_round, delta)
        truth = exact(math.sqrt(rounds) * per_round, delta)
        assert truth <= mine <= 1.25 * truth


def test_the_adaptive_bound_finds_the_median_of_the_norms() -> None:
    adaptive = AdaptiveClipping(quantile=0.5, learning_rate=0.3, count_noise=4.0)
    settings = UpdatePrivacy(noise_multiplier=2.0, clip_norm=8.0, adaptive=adaptive)
    rng = np.random.default_rng(4)
    norms = np.exp(rng.normal(0, 0.5, 50))
    bound = settings.clip_norm
    for _ in range(120):
        within = float((norms <= bound).sum() + rng.normal(0, 4.0)) / 50
        bound = next_clip_norm(bound, within, settings)
    assert bound == pytest.approx(np.median(norms), rel=0.25)
    assert next_clip_norm(2.0, 0.9, UpdatePrivacy(noise_multiplier=1, clip_norm=2)) == 2.0


def test_the_count_within_the_bound_is_part_of_the_budget() -> None:
    private = updates(adaptive={"count_noise": 1.0})
    assert private.num_words == SIZE + 1
    assert private.update_multiplier == pytest.approx((1.5**-2 - 0.25) ** -0.5)
    assert private.epsilon() == pytest.approx(1 / 1.5, rel=1e-9)
    source = np.random.default_rng(5).bytes
    changes = [np.full(SIZE, 1e-4), np.full(SIZE, 1.0)] * 5
    total = sum((private.pack(c, 1.0, source) for c in changes), np.zeros(SIZE + 1, np.uint32))
    _, within = private.unpack(total, 10)
    assert within == pytest.approx(0.5, abs=5 * 0.1 * math.sqrt(10 / 7))
    with pytest.raises(PrivacyError, match=r"raise secure_aggregation\.updates\.adaptive"):
        updates(adaptive={"count_noise": 0.5}).epsilon()


def test_a_capped_weight_scales_the_update_and_an_uncapped_one_is_refused() -> None:
    private = updates()
    source = np.random.default_rng(6).bytes
    with pytest.raises(PrivacyError, match=r"weight is 1\.5, expected 0 to 1"):
        private.pack(np.zeros(SIZE), 1.5, source)
    with pytest.raises(PrivacyError, match=r"lower secure_aggregation\.step_bits"):
        PrivateUpdates(private.settings, FixedPoint(28, 32), 10, 7, SIZE, 0.5).epsilon()


def test_what_it_is_worth_with_ten_hospitals() -> None:
    """The figures of the docstring: half a million numbers drown a hospital's update."""
    settings = UpdatePrivacy(noise_multiplier=1.0, clip_norm=1.0)
    private = PrivateUpdates(settings, FixedPoint(20, 32), 10, 7, 500_000, 1.0)
    noise = private.noise_sd * GRID.step * math.sqrt(10) * math.sqrt(500_000) / 10
    assert 70 < noise < 90
