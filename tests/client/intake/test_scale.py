"""The scale of stored values, by who wrote it."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.intake.headers import read_header


def written(dataset: Dataset, path: Path) -> tuple[float, float]:
    dataset.save_as(path)
    frames = read_header(path)
    assert isinstance(frames, tuple)
    return frames[0].slope, frames[0].intercept


@pytest.fixture
def image(shared_data: Path) -> Dataset:
    dataset = dcmread(shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm")
    for keyword in ("RescaleSlope", "RescaleIntercept", "RealWorldValueMappingSequence"):
        if keyword in dataset:
            del dataset[keyword]
    return dataset


def test_without_a_word_the_stored_values_stand(image: Dataset, tmp_path: Path) -> None:
    assert written(image, tmp_path / "a.dcm") == (1.0, 0.0)


def test_philips_images_come_back_to_one_signal(image: Dataset, tmp_path: Path) -> None:
    """Two images of one signal, each rescaled to fill the stored range, agree afterwards."""
    signal = np.array([0.0, 40.0, 812.5])
    for at, (slope, intercept, scale_slope) in enumerate([(2.5, 0.0, 0.02), (0.8, -16.0, 0.05)]):
        # DV = FP RS SS and SV = (DV - RI) / RS.
        stored = (signal * slope * scale_slope - intercept) / slope
        image.RescaleSlope, image.RescaleIntercept = slope, intercept
        block = image.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", scale_slope)
        found = written(image, tmp_path / f"{at}.dcm")
        np.testing.assert_allclose(stored * found[0] + found[1], signal, rtol=1e-5, atol=1e-4)
        del image[block.get_tag(0x0E)]


def test_another_owner_of_the_same_tag_means_something_else(image: Dataset, tmp_path: Path) -> None:
    image.RescaleSlope, image.RescaleIntercept = 2.0, 1.0
    image.private_block(0x2005, "SOMEBODY ELSE", create=True).add_new(0x0E, "FL", 0.5)
    assert written(image, tmp_path / "a.dcm") == (2.0, 1.0)


def test_a_single_real_world_map_stands_in_for_a_rescale(image: Dataset, tmp_path: Path) -> None:
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 0.5, -3.0
    image.RealWorldValueMappingSequence = [item]
    assert written(image, tmp_path / "a.dcm") == (0.5, -3.0)
    image.RealWorldValueMappingSequence = [item, item]
    assert written(image, tmp_path / "b.dcm") == (1.0, 0.0)
    image.RescaleSlope = 4.0
    assert written(image, tmp_path / "c.dcm") == (4.0, 0.0)
