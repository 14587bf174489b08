"""The square around the ventricle that the survival network sees."""

from collections.abc import Callable

import numpy as np
import pytest

from client.cohort import Patient
from client.crop import crop_heart
from protocol.survival_config import Prognosis
from shared_models.labels import LV, MYO

SECTION = Prognosis(crop_px=16, max_slices=4)


def heart_at(row: int, column: int, slices: slice, shape: tuple[int, int, int]) -> np.ndarray:
    labels = np.zeros((2, *shape), np.uint8)
    labels[0, slices, row - 2 : row + 3, column - 2 : column + 3] = MYO
    labels[0, slices, row - 1 : row + 2, column - 1 : column + 2] = LV
    return labels


@pytest.mark.parametrize(("row", "column"), [(20, 24), (5, 5), (34, 3), (37, 37)])
def test_the_ventricle_is_in_the_middle_even_at_the_edge(
    make_patient: Callable[..., Patient], row: int, column: int
) -> None:
    shape = (3, 40, 40)
    patient = make_patient(1, shape=shape)
    labels = heart_at(row, column, slice(0, 3), shape)
    patient.cine[0] = (labels[0] == LV) * 1.0
    images, present = crop_heart(patient, labels, SECTION)
    assert images.shape == (3, 4, 16, 16)
    assert present.tolist() == [1, 1, 1, 0]
    expected = np.zeros((16, 16))
    expected[7:10, 7:10] = 1
    np.testing.assert_array_equal(images[1, 0], expected)
    assert not images[:, 3].any()


def test_channels_are_lge_ed_es(make_patient: Callable[..., Patient]) -> None:
    patient = make_patient(1, shape=(2, 32, 32))
    patient.cine[0], patient.cine[1] = 0.25, 0.5
    images, _ = crop_heart(patient, np.zeros((2, 2, 32, 32), np.uint8), SECTION)
    assert images[:, 0, 8, 8].tolist() == [0.0, 0.25, 0.5]


def test_of_a_long_stack_the_slices_around_the_ventricle_are_kept(
    make_patient: Callable[..., Patient],
) -> None:
    shape = (12, 32, 32)
    patient = make_patient(1, shape=shape)
    patient.cine[0] = np.arange(12)[:, None, None]
    images, present = crop_heart(patient, heart_at(16, 16, slice(5, 9), shape), SECTION)
    assert present.all()
    assert images[1, :, 8, 8].tolist() == [5, 6, 7, 8]


def test_without_a_ventricle_the_middle_is_kept(make_patient: Callable[..., Patient]) -> None:
    patient = make_patient(1, shape=(12, 32, 32))
    patient.cine[0] = np.arange(12)[:, None, None]
    images, _ = crop_heart(patient, np.zeros((2, 12, 32, 32), np.uint8), SECTION)
    assert images[1, :, 8, 8].tolist() == [4, 5, 6, 7]
