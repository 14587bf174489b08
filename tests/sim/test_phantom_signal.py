"""Signal equations against the published ratios, and what the scanner adds."""

import numpy as np
import pytest

from sim.phantom.acquisition import acquire, mistrigger, noise_pool, receive_field, zero_fill
from sim.phantom.signal import (
    LGE_REPETITION_MS,
    cine_signals,
    inversion_recovery_signal,
    lge_signals,
    null_time_ms,
)


@pytest.mark.parametrize(
    ("field_t", "flip_deg", "ratio"), [(1.5, 60, 2.7), (3.0, 60, 2.3), (3.0, 45, 2.15)]
)
def test_blood_to_muscle_in_the_cine(field_t: float, flip_deg: float, ratio: float) -> None:
    # Specification J2: bSSFP blood/myocardium 2.7 at 1.5 T, 2.3 at 3 T, 2.15 at 45 degrees.
    assert 1 / cine_signals(field_t, 1.5, flip_deg)["myocardium"] == pytest.approx(ratio, abs=0.06)


@pytest.mark.parametrize(
    ("t1", "null_ms", "others"),
    [(645, 402, {508: 0.13, 330: 0.41}), (480, 319, {330: 0.25, 270: 0.39})],
)
def test_inversion_recovery_golden(t1: float, null_ms: float, others: dict[float, float]) -> None:
    # Specification J2: null times and remaining signal of blood and scar at 3 T and 1.5 T.
    assert null_time_ms(t1) == pytest.approx(null_ms, abs=0.5)
    assert inversion_recovery_signal(t1, null_time_ms(t1), LGE_REPETITION_MS) == pytest.approx(0)
    for other, signal in others.items():
        found = inversion_recovery_signal(other, null_ms, LGE_REPETITION_MS)
        assert found == pytest.approx(signal, abs=0.006)


@pytest.mark.parametrize("field_t", [1.5, 3.0])
def test_scar_is_brightest_in_the_heart(field_t: float) -> None:
    signals, ti_ms = lge_signals(field_t, 0.0)
    assert 300 < ti_ms < 420
    assert signals["scar"] == 1
    assert abs(signals["myocardium"]) < 1e-9
    assert 0.2 < signals["blood"] < 0.8


def test_early_inversion_makes_muscle_negative() -> None:
    assert lge_signals(1.5, -40.0)[0]["myocardium"] < 0


def test_noise_is_rician() -> None:
    rng = np.random.default_rng(0)
    pool = noise_pool(128, rng)
    dark = acquire(np.zeros((2, 2, 128, 128), np.float32), 0.05, 1000, pool, rng)
    bright = acquire(np.full((2, 2, 128, 128), 1.0, np.float32), 0.05, 1000, pool, rng)
    # Rayleigh: mean sigma sqrt(pi/2); high signal: Gaussian of sd sigma around sqrt(s^2 + sigma^2).
    assert dark.mean() == pytest.approx(50 * np.sqrt(np.pi / 2), rel=0.02)
    assert bright.std() == pytest.approx(50, rel=0.03)
    assert bright.mean() == pytest.approx(1000, rel=0.01)


def test_noise_differs_between_images() -> None:
    rng = np.random.default_rng(0)
    stored = acquire(np.ones((6, 1, 64, 64), np.float32), 0.1, 1000, noise_pool(64, rng), rng)
    correlation = np.corrcoef(stored.reshape(6, -1).astype(float))
    assert np.abs(correlation[~np.eye(6, dtype=bool)]).max() < 0.08


def test_mistrigger_off_is_identity_and_on_keeps_the_mean() -> None:
    rng = np.random.default_rng(1)
    images = rng.random((6, 3, 32, 32)).astype(np.float32)
    same = images.copy()
    mistrigger(same, 0.0, rng)
    np.testing.assert_array_equal(same, images)
    mistrigger(same, 1.0, rng)
    assert (same != images).any()
    assert same.mean() == pytest.approx(images.mean(), abs=0.02)


def test_receive_field_is_smooth_and_centred() -> None:
    field = receive_field(96, 0.25, np.random.default_rng(0))
    assert field.mean() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(field, axis=0)).max() < 0.05
    assert 1.1 < field.max() / field.min() < 2.0


def test_zero_fill_keeps_samples() -> None:
    image = np.abs(np.random.default_rng(0).random((2, 32, 32))).astype(np.float32) + 1
    wide = zero_fill(image)
    assert wide.shape == (2, 64, 64)
    np.testing.assert_allclose(wide[:, ::2, ::2], image, rtol=0.2)
    assert wide.mean() == pytest.approx(image.mean(), rel=0.02)
