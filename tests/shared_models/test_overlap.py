import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage

from shared_models.metrics.overlap import agreement, dice, surface_distances

SPACING_MM = (8.0, 1.5, 1.25)


def _blobs(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(6, 24, 20))
    return ndimage.gaussian_filter(noise, (0.7, 2, 2)) > 0.05


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_distances_equal_the_peer(seed: int) -> None:
    a, b = _blobs(seed), _blobs(seed + 100)
    found = agreement(a.astype(np.uint8), b.astype(np.uint8), 1, SPACING_MM)
    tensors = [torch.from_numpy(mask)[None, None] for mask in (a, b)]
    hd95 = compute_hausdorff_distance(*tensors, percentile=95, spacing=SPACING_MM)
    assd = compute_average_surface_distance(*tensors, symmetric=True, spacing=SPACING_MM)
    assert found.hd95_mm == pytest.approx(float(hd95), rel=1e-5)
    assert found.assd_mm == pytest.approx(float(assd), rel=1e-5)
    assert found.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_a_mask_agrees_with_itself_and_both_ways() -> None:
    a, b = _blobs(1).astype(int), _blobs(2).astype(int)
    same = agreement(a, a, 1, SPACING_MM)
    assert (same.dice, same.hd95_mm, same.assd_mm) == (1.0, 0.0, 0.0)
    assert agreement(a, b, 1, SPACING_MM) == agreement(b, a, 1, SPACING_MM)


def test_a_shift_by_two_slices_is_two_slice_distances() -> None:
    a, b = np.zeros((8, 5, 5), int), np.zeros((8, 5, 5), int)
    a[1, 2, 2], b[3, 2, 2] = 1, 1
    found = agreement(a, b, 1, SPACING_MM)
    assert (found.dice, found.hd95_mm, found.assd_mm) == (0.0, 16.0, 16.0)


def test_twice_the_spacing_is_twice_the_distance() -> None:
    a, b = _blobs(3), _blobs(4)
    once = surface_distances(a, b, SPACING_MM)
    twice = surface_distances(a, b, [2 * s for s in SPACING_MM])
    for near, far in zip(once, twice, strict=True):
        np.testing.assert_allclose(2 * near, far)


def test_an_absent_class() -> None:
    none, some = np.zeros((2, 4, 4), int), np.ones((2, 4, 4), int)
    both = agreement(none, none, 1, SPACING_MM)
    assert math.isnan(both.dice) and math.isnan(both.hd95_mm) and math.isnan(both.assd_mm)
    one = agreement(none, some, 1, SPACING_MM)
    assert one.dice == 0.0 and math.isnan(one.hd95_mm) and math.isnan(one.assd_mm)
    assert math.isnan(dice(none == 1, none == 1))
