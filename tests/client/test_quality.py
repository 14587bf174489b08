"""Figures of a cine, against what was done to it; limits, against what they set aside."""

from pathlib import Path

import numpy as np
import pytest

from client.imaging import read_dicom_site
from client.intake.headers import read_header
from client.intake.images import decode
from client.intake.sorting import sort_study
from client.intake.stacks import plan_stack
from client.mask_quality import mask_problems
from client.placement import Stack
from client.quality import examine_cine, problems
from client.quality_limits import MaskLimits, QualityLimits
from protocol.config import Preprocessing
from protocol.errors import DataError
from shared_models.labels import LV, MYO, RV


def beating(noise: float = 0.0, num_phases: int = 12, num_slices: int = 9) -> Stack:
    """Return a bright disc that contracts once a beat, before a structured background."""
    y, x = np.mgrid[:96, :96].astype(np.float32)
    radius = np.hypot(y - 47.5, x - 47.5)
    background = 40 + 20 * np.sin(x / 9) * np.cos(y / 7)
    rng = np.random.default_rng(3)
    frames = np.empty((num_phases, num_slices, 96, 96), np.float32)
    for t in range(num_phases):
        squeeze = 1 - 0.3 * np.sin(np.pi * t / num_phases) ** 2
        for z in range(num_slices):
            size = (16 - abs(z - num_slices // 2)) * squeeze
            plane = np.where(radius < size + 6, 60.0, background)
            frames[t, z] = np.where(radius < size, 220.0, plane)
    frames += rng.normal(0, noise, frames.shape) if noise else 0
    return Stack(frames.astype(np.float32), np.eye(4), (8.0, 1.5, 1.5))


def changed(stack: Stack, pixels: np.ndarray) -> Stack:
    return Stack(pixels, stack.affine, stack.spacing_mm)


@pytest.mark.parametrize("noise", [2.0, 8.0])
def test_signal_and_contrast_are_in_units_of_the_noise(noise: float) -> None:
    quality = examine_cine(beating(noise))
    assert quality.signal_to_noise == pytest.approx(220 / noise, rel=0.15)
    # Blood is 220; a quarter of the heart's pixels is darker than the muscle's 60 or the like.
    assert (220 - 70) / noise < quality.contrast_to_noise < (220 - 20) / noise
    assert quality.num_slices == 9 and quality.extent_mm == 72.0


@pytest.mark.parametrize(("rows", "cols"), [(8, 0), (0, -8), (6, 6)])
def test_a_displaced_slice_is_measured(rows: int, cols: int) -> None:
    stack = beating(2.0)
    still = examine_cine(stack).misalignment_mm
    pixels = stack.pixels.copy()
    pixels[:, 4] = np.roll(pixels[:, 4], (rows, cols), axis=(1, 2))
    moved = examine_cine(changed(stack, pixels)).misalignment_mm
    assert still < 2.0
    assert moved == pytest.approx(1.5 * np.hypot(rows, cols), abs=1.5)
    limits = QualityLimits(max_misalignment_mm=6.0)
    assert problems(examine_cine(stack), limits) == []
    assert problems(examine_cine(changed(stack, pixels)), limits) == [
        "a slice is displaced by more than 6 mm"
    ]


def test_slices_out_of_step_are_counted() -> None:
    stack = beating(1.0)
    assert examine_cine(stack).mistriggered == 0.0
    pixels = stack.pixels.copy()
    rng = np.random.default_rng(0)
    for z in (2, 4, 6):
        pixels[:, z] = pixels[rng.permutation(12), z]
    found = examine_cine(changed(stack, pixels)).mistriggered
    assert 2 / 9 <= found <= 4 / 9


def test_every_limit_names_itself() -> None:
    quality = examine_cine(beating(2.0))
    strict = QualityLimits(
        min_slices=10,
        min_extent_mm=100,
        slice_distance_mm=(9, 20),
        pixel_mm=(0.4, 1.4),
        min_signal_to_noise=1000,
        min_contrast_to_noise=1000,
    )
    assert problems(quality, QualityLimits()) == []
    assert problems(quality, strict) == [
        "fewer than 10 slices",
        "slices cover less than 100 mm",
        "slice distance outside 9 to 20 mm",
        "pixels outside 0.4 to 1.4 mm",
        "signal below 1000 times the noise",
        "contrast below 1000 times the noise",
    ]


def test_real_studies_pass(real_studies: Path) -> None:
    for name in ("SCD0000301", "SCD0000501", "vida"):
        frames = []
        for path in sorted((real_studies / name).rglob("*")):
            found = read_header(path) if path.is_file() else ""
            frames += [] if isinstance(found, str) else list(found)
        plan = plan_stack(sort_study(frames).cine)
        stack = Stack(decode(plan), plan.affine, plan.spacing_mm)
        assert problems(examine_cine(stack), QualityLimits()) == []


def heart(num_slices: int = 8) -> np.ndarray:
    labels = np.zeros((2, num_slices, 64, 64), np.uint8)
    y, x = np.mgrid[:64, :64]
    radius = np.hypot(y - 32, x - 36)
    for phase, size in enumerate((12, 8)):
        labels[phase, :, np.hypot(y - 32, x - 20) < 12] = RV
        labels[phase, :, radius < size + 5] = MYO
        labels[phase, :, radius < size] = LV
    return labels


def test_a_true_heart_has_no_problem() -> None:
    assert mask_problems(heart(), MaskLimits()) == []


def test_what_cannot_be_a_heart_is_named() -> None:
    def after(change: object) -> list[str]:
        labels = heart()
        change(labels)  # type: ignore[operator]
        return mask_problems(labels, MaskLimits())

    def without_rv(labels: np.ndarray) -> None:
        labels[1][labels[1] == RV] = 0

    def hole(labels: np.ndarray) -> None:
        labels[0, 3] = 0

    def short(labels: np.ndarray) -> None:
        labels[:, 4:] = 0

    def swapped(labels: np.ndarray) -> None:
        labels[:] = labels[::-1].copy()

    def islands(labels: np.ndarray) -> None:
        labels[0, 2, 50:60, 2:30] = LV

    def bare_middle(labels: np.ndarray) -> None:
        labels[0][labels[0] == RV] = 0
        labels[0, 0, :6, :6] = RV

    assert after(without_rv) == ["fewer than 10 pixels of RV at end-systole"]
    assert after(hole) == ["left ventricle missing in a slice between others"]
    assert after(short) == ["left ventricle in fewer than 5 slices"]
    assert after(swapped) == ["left ventricle not smaller at end-systole"]
    assert after(islands) == ["left ventricle in pieces within a slice"]
    assert after(bare_middle) == ["no right ventricle or no myocardium in the middle slice"]


def test_a_study_beyond_a_limit_is_set_aside_with_its_reason(phantom_hospitals: Path) -> None:
    root = phantom_hospitals / "elm" / "dicom"
    found, refused = read_dicom_site(root, b"0" * 32, Preprocessing())
    assert len(found) == 3 and all(p.quality is not None for p in found)
    limits = QualityLimits(min_slices=40)
    none, refused = read_dicom_site(root, b"0" * 32, Preprocessing(), limits=limits)
    assert none == [] and refused[("patient", "set aside: fewer than 40 slices")] == 3


def test_a_limit_is_a_number() -> None:
    with pytest.raises(ValueError, match="min_slices"):
        QualityLimits(min_slices=0)
    still = Stack(np.ones((3, 4, 32, 32), np.float32), np.eye(4), (8.0, 1.5, 1.5))
    with pytest.raises(DataError, match="does not move"):
        examine_cine(still)
