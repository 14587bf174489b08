"""Measurements of one patient."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from client.cohort import Patient
from client.quantities import FUNCTION, MEASUREMENTS, measure_patient, volumes
from protocol.stats import QUANTITIES
from shared_models.labels import LV, MYO, RV


def ring(slices: int, size: int, inner: float, outer: float) -> np.ndarray:
    """Return labels (Z, Y, X): a round cavity in a round wall, and a square RV in a corner."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(y, x)
    labels = np.zeros((slices, size, size), np.uint8)
    labels[:, radius < outer] = MYO
    labels[:, radius < inner] = LV
    labels[:, :4, :4] = RV
    return labels


@pytest.fixture
def labels() -> np.ndarray:
    return np.stack([ring(4, 32, 8, 12), ring(4, 32, 5, 12)])


def test_volumes_by_hand(labels: np.ndarray) -> None:
    found = volumes(labels, (10.0, 1.5, 1.5))
    voxel_ml = 10 * 1.5 * 1.5 / 1000
    edv = np.count_nonzero(labels[0] == LV) * voxel_ml
    esv = np.count_nonzero(labels[1] == LV) * voxel_ml
    assert found["lv_edv_ml"] == pytest.approx(edv)
    assert found["lv_ef_percent"] == pytest.approx(100 * (edv - esv) / edv)
    assert found["lv_mass_g"] == pytest.approx(np.count_nonzero(labels[0] == MYO) * voxel_ml * 1.05)
    assert found["rv_edv_ml"] == pytest.approx(4 * 16 * voxel_ml)


def test_every_quantity_of_the_agreement_is_measured() -> None:
    assert set(FUNCTION) == set(QUANTITIES)
    assert set(FUNCTION) <= set(MEASUREMENTS)


def test_scar_is_found_inside_the_wall_and_not_at_its_border(
    make_patient: Callable[..., Patient], labels: np.ndarray
) -> None:
    rng = np.random.default_rng(0)
    lge = np.where(labels[0] == LV, 0.9, 0.1) + rng.normal(0, 0.01, labels[0].shape)
    y, x = np.mgrid[:32, :32] - 15.5
    wall = (np.hypot(y, x) > 9) & (np.hypot(y, x) < 11)
    bright = lge.copy()
    bright[:, wall & (x > 0) & (y > 0)] = 0.95
    patient = make_patient(1, shape=(4, 32, 32))
    present = np.ones(4, bool)
    names = ("scar_fwhm_percent", "scar_5sd_percent")
    healthy = replace(patient, lge=lge.astype(np.float32), lge_present=present)
    scarred = replace(patient, lge=bright.astype(np.float32), lge_present=present)
    # The cavity is brighter than any scar; one pixel of it in the wall would count.
    assert max(measure_patient(healthy, labels, names)) < 2
    quarter = measure_patient(scarred, labels, names)
    assert all(20 < value < 32 for value in quarter)


def test_without_late_enhancement_scar_is_missing_and_not_zero(
    make_patient: Callable[..., Patient], labels: np.ndarray
) -> None:
    patient = make_patient(1, shape=(4, 32, 32))
    values = measure_patient(patient, labels, ("scar_fwhm_percent", "lv_ef_percent"))
    assert np.isnan(values[0])
    assert np.isfinite(values[1])
