"""Centring, phases, scaling, late enhancement on the cine's grid: on a beating disc."""

import numpy as np
import pytest

from client.placement import Stack, find_lv_centre, systole
from client.preprocess import normalise, prepare
from protocol.config import Preprocessing
from protocol.errors import DataError
from shared_models.labels import LV

OPTIONS = Preprocessing(spacing_mm=1.5, crop_px=64)
SPACING = (8.0, 1.25, 1.25)
# Columns to the left, rows down, slices base to apex: upright as it stands.
AFFINE = np.array(
    [[0.71 * 1.25, -0.31 * 1.25, 5.0, 0], [0.70 * 1.25, 0.27 * 1.25, -5.3, 0],
     [-0.03 * 1.25, -0.91 * 1.25, -3.3, 0], [0, 0, 0, 1.0]]
)  # fmt: skip


def _beating(centre: tuple[float, float] = (70.0, 58.0)) -> np.ndarray:
    """Cine (8, 6, 120, 112): a bright disc of radius 18 px that shrinks to 10 at phase 3."""
    y, x = np.mgrid[:120, :112]
    distance = np.hypot(y - centre[0], x - centre[1])
    radii = 14 + 4 * np.cos(2 * np.pi * (np.arange(8) / 8.0) * 1.0)
    radii = np.where(np.arange(8) == 3, 9.5, radii)
    noise = np.random.default_rng(2).normal(0, 2.0, (8, 6, 120, 112))
    discs = np.stack([np.where(distance < r, 100.0, 20.0) for r in radii])
    return (discs[:, None] + noise + 30.0).astype(np.float32)


def _labels(cine: np.ndarray) -> np.ndarray:
    return (cine[[0, 3]] > 90).astype(np.uint8) * LV


def test_the_ventricle_is_found_where_it_beats() -> None:
    centre = find_lv_centre(_beating(), SPACING)
    assert np.hypot(centre[0] - 70, centre[1] - 58) * 1.25 < 3.0


def test_scale_and_offset_of_the_scanner_do_not_move_the_centre() -> None:
    cine = _beating()
    one, other = find_lv_centre(cine, SPACING), find_lv_centre(cine * 37.0, SPACING)
    assert one == pytest.approx(other, abs=1e-3)


def test_systole_is_the_most_different_phase() -> None:
    assert systole(_beating(), (70.0, 58.0), SPACING) == 3


def test_masks_move_nothing() -> None:
    cine = _beating()
    with_masks = prepare(Stack(cine, AFFINE, SPACING), OPTIONS, labels=_labels(cine), phases=(0, 3))
    without = prepare(Stack(cine, AFFINE, SPACING), OPTIONS)
    np.testing.assert_array_equal(with_masks.cine, without.cine)
    assert without.labels is None and with_masks.labels is not None


def test_the_result_is_on_common_ground() -> None:
    cine = _beating()
    out = prepare(Stack(cine, AFFINE, SPACING), OPTIONS, labels=_labels(cine), phases=(0, 3))
    assert out.cine.shape == (2, 6, 64, 64) and out.cine.dtype == np.float32
    assert out.cine.min() == 0.0 and out.cine.max() == 1.0
    assert out.spacing_mm == (8.0, 1.5, 1.5)
    assert out.labels is not None and out.labels.dtype == np.uint8
    # The cavity keeps its area in mm2: 18 px of 1.25 mm.
    area_mm2 = float((out.labels[0] == LV).sum()) * 1.5**2 / 6
    assert area_mm2 == pytest.approx(np.pi * (18 * 1.25) ** 2, rel=0.03)
    inside = out.cine[0][out.labels[0] == LV].mean()
    assert inside > 0.8 and out.cine[0][out.labels[0] == 0].mean() < 0.4


def test_scaling_of_the_scanner_does_not_change_the_result() -> None:
    cine = _beating()
    one = prepare(Stack(cine, AFFINE, SPACING), OPTIONS)
    other = prepare(Stack(cine * 4.0, AFFINE, SPACING), OPTIONS)
    np.testing.assert_allclose(one.cine, other.cine, atol=1e-5)


def test_late_enhancement_lies_on_the_cine() -> None:
    cine = _beating()
    # Another field of view, rows and columns exchanged, every second slice only.
    late = cine[:1, ::2].swapaxes(-1, -2)
    affine = AFFINE[:, [1, 0, 2, 3]] @ np.diag([1.0, 1.0, 2.0, 1.0])
    out = prepare(
        Stack(cine, AFFINE, SPACING), OPTIONS, lge=Stack(late, affine, (16.0, 1.25, 1.25))
    )
    assert out.lge is not None and out.lge.shape == (6, 64, 64)
    # A slice half a cine spacing away or nearer serves; those halfway between serve none.
    np.testing.assert_array_equal(out.lge_present, [True, False] * 3)
    assert not out.lge[1].any()
    assert np.corrcoef(out.lge[2].ravel(), out.cine[0, 2].ravel())[0, 1] > 0.98


def test_late_enhancement_elsewhere_is_absent() -> None:
    cine = _beating()
    far = AFFINE.copy()
    far[:3, 3] += 500.0
    out = prepare(Stack(cine, AFFINE, SPACING), OPTIONS, lge=Stack(cine[:1], far, SPACING))
    assert out.lge is None and not out.lge_present.any()


def test_percentiles_map_to_nought_and_one() -> None:
    out = normalise(np.arange(1.0, 102.0), (1.0, 99.0))
    assert out[0] == 0 and out[1] == 0 and out[50] == pytest.approx(0.5) and out[-1] == 1


def test_a_flat_or_still_series_is_refused() -> None:
    with pytest.raises(DataError, match="all pixels of the series are alike"):
        normalise(np.ones((4, 4)), (1.0, 99.0))
    with pytest.raises(DataError, match="does not move"):
        find_lv_centre(np.zeros((4, 5, 32, 32), dtype=np.float32), SPACING)
