"""DerSimonian-Laird, Hartung-Knapp and prediction intervals: hand-worked, published, coverage."""

import numpy as np
import pytest

from protocol.errors import DataError
from shared_models.metrics.meta_analysis import logit_scale, random_effects


def test_by_hand() -> None:
    # y = 1, 2, 4, v = 1: fixed mean 7/3, Q = 16/9 + 1/9 + 25/9 = 14/3, C = 3 - 3/3 = 2,
    # tau^2 = (14/3 - 2) / 2 = 4/3, I^2 = (14/3 - 2) / (14/3) = 4/7. All w = 3/7: sum w = 9/7.
    # Hartung-Knapp: variance = (3/7)(14/3) / (2 * 9/7) = 7/9 = 1 / sum w; t_2 = 4.302653.
    # Prediction: t_1 = 12.706205, sqrt(4/3 + 7/9) = sqrt(19/9).
    found = random_effects([1, 2, 4], [1, 1, 1])
    assert found.estimate == pytest.approx(7 / 3)
    assert (found.q, found.tau_squared, found.i_squared) == pytest.approx((14 / 3, 4 / 3, 4 / 7))
    half, ahead = 4.302652729911275 * np.sqrt(7 / 9), 12.706204736174694 * np.sqrt(19 / 9)
    assert (found.low, found.high) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-9)
    assert found.predicted_high == pytest.approx(7 / 3 + ahead, rel=1e-9)
    assert found.num_hospitals == 3


def test_equals_statsmodels() -> None:
    # statsmodels 0.15, combine_effects(..., method_re="dl", use_t=True): tau2, mean_effect_re, q,
    # i2 and the square root of var_hksj_re.
    found = random_effects(
        [0.61, 0.74, 0.55, 0.70, 0.66, 0.81], [0.0016, 0.0025, 0.0009, 0.0036, 0.0004, 0.0049]
    )
    figures = (found.tau_squared, found.estimate, found.q, found.i_squared)
    expected = (0.004641611643976647, 0.6643255591523953, 21.36056866893341, 0.7659238348241193)
    assert figures == pytest.approx(expected, rel=1e-9)
    half = 2.570581835636314 * 0.036457081187814426  # t with 5 degrees of freedom
    assert found.high - found.estimate == pytest.approx(half, rel=1e-9)


def test_unequal_variances_written_out() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        k = int(rng.integers(3, 12))
        y, v = rng.normal(0, 1, k), rng.uniform(0.05, 1, k)
        found = random_effects(y, v)
        # The generic moment estimator in its double-sum form: Q = sum_{i<j} w_i w_j (y_i - y_j)^2
        # / sum w, and its expectation without heterogeneity k - 1.
        w = 1 / v
        q = sum(w[i] * w[j] * (y[i] - y[j]) ** 2 for i in range(k) for j in range(i)) / w.sum()
        c = sum(2 * w[i] * w[j] for i in range(k) for j in range(i)) / w.sum()
        tau = max(0.0, (q - k + 1) / c)
        assert (found.q, found.tau_squared) == pytest.approx((q, tau), rel=1e-9, abs=1e-12)
        w = 1 / (v + tau)
        mean = np.average(y, weights=w)
        assert found.estimate == pytest.approx(mean, abs=1e-9)
        assert found.low < mean < found.high
        assert found.predicted_low < found.low and found.high < found.predicted_high


def test_one_hospital_is_itself_without_intervals() -> None:
    found = random_effects([0.7], [0.01])
    assert (found.estimate, found.tau_squared, found.q) == (0.7, 0.0, 0.0)
    assert np.isnan([found.low, found.high, found.predicted_low, found.predicted_high]).all()
    two = random_effects([0.7, 0.8], [0.01, 0.01])
    assert np.isfinite(two.low) and np.isnan(two.predicted_low)


def test_hospitals_that_agree_keep_a_width() -> None:
    found = random_effects([0.7] * 4, [0.01] * 4)
    assert (found.tau_squared, found.i_squared) == (0, 0)
    assert found.high - found.estimate == pytest.approx(3.182446305284263 * 0.05, rel=1e-9)


def test_order_does_not_matter_and_shifting_shifts() -> None:
    y, v = [0.1, 0.5, 0.3, 0.9], [0.02, 0.03, 0.01, 0.04]
    a, b = random_effects(y, v), random_effects(y[::-1], v[::-1])
    assert a.estimate == pytest.approx(b.estimate, rel=1e-13)
    moved = random_effects([value + 3 for value in y], v)
    assert moved.estimate == pytest.approx(a.estimate + 3)
    assert moved.tau_squared == pytest.approx(a.tau_squared)


def test_the_logit_scale_stays_inside_0_and_1() -> None:
    found = random_effects([0.95, 0.99, 0.9], [0.002, 0.003, 0.004], logit=True)
    points = (found.predicted_low, found.low, found.estimate, found.high, found.predicted_high)
    assert 0 < points[0] < points[1] < points[2] < points[3] < points[4] < 1
    y, v = logit_scale(np.array([0.8]), np.array([0.01]))
    assert y[0] == pytest.approx(np.log(4)) and v[0] == pytest.approx(0.01 / 0.16**2)
    alone = random_effects([0.8], [0.01], logit=True)
    assert alone.estimate == pytest.approx(0.8)


def test_intervals_cover_what_they_promise() -> None:
    rng = np.random.default_rng(3)
    mean, tau, held, ahead = 0.3, 0.25, 0, 0
    for _ in range(600):
        v = rng.uniform(0.02, 0.1, 8)
        centre = rng.normal(mean, tau, 9)
        found = random_effects(rng.normal(centre[:8], np.sqrt(v)), v)
        held += found.low <= mean <= found.high
        ahead += found.predicted_low <= centre[8] <= found.predicted_high
    assert held / 600 == pytest.approx(0.95, abs=0.03)
    assert 0.85 <= ahead / 600 <= 0.97  # known to fall short for few hospitals, see the docstring


@pytest.mark.parametrize(
    ("estimates", "variances", "sentence"),
    [
        ([], [], "0 estimates and 0 variances were given"),
        ([1.0], [1.0, 2.0], "1 estimates and 2 variances were given"),
        ([1.0], [0.0], "a variance is not above 0"),
        ([np.nan], [1.0], "An estimate is not finite"),
    ],
)
def test_bad_input_is_named(estimates, variances, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        random_effects(estimates, variances)


def test_an_index_of_1_has_no_logit() -> None:
    with pytest.raises(DataError, match="which has no logit"):
        random_effects([1.0, 0.8], [0.01, 0.01], logit=True)
