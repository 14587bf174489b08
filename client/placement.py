"""Where a cine's crop lies, and its ED and ES, from the images alone; and the way back.

Axes: T phases, Z slices base to apex, Y rows, X columns.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from client.geometry import apply_turn, crop_affine, resample_labels, turn_upright, undo_turn
from protocol.config import Preprocessing
from protocol.errors import DataError
from shared_models.labels import NUM_CLASSES

__all__ = ["Placement", "Stack", "find_lv_centre", "labels_back", "place", "systole"]

PRIOR_MM = 45.0
SMOOTHING_MM = 5.0
CLIP_PERCENTILE = 95
SYSTOLE_RADIUS_MM = 45.0
# Pixels of one size as far as the crop's edge can tell, in pixels: then nothing is resampled.
SAME_STEP_PX = 0.05


@dataclass(frozen=True)
class Stack:
    """Pixels and where they are: float32 (T, Z, Y, X), affine to LPS mm, (dz, dy, dx) in mm."""

    pixels: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """How a stack got onto the common grid, so that labels can go back.

    Attributes
    ----------
    shape : tuple of int
        (rows, columns) of the stack as acquired.
    turn : tuple of bool
        As of `client.geometry.turn_upright`.
    centre_px, step_px : tuple of float
        (row, column) of the turned stack: middle of the crop, and its pixel in source pixels.
    size : int
        Side of the crop, pixels.
    phases : tuple of int
        Phases of the cine taken for (ED, ES).
    affine : ndarray, shape (4, 4)
        Of the crop: (column, row, slice, 1) to LPS mm.
    """

    shape: tuple[int, int]
    turn: tuple[bool, bool, bool]
    centre_px: tuple[float, float]
    step_px: tuple[float, float]
    size: int
    phases: tuple[int, int]
    affine: np.ndarray


def find_lv_centre(cine: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Find the left ventricle as what moves once a heart beat near the middle of the image.

    The magnitude of the first temporal harmonic is large where blood and muscle change places once
    a cycle, and small where pixels are noisy (noise spreads over all harmonics) or still. It is
    clipped, because a vessel beside the heart can outshine it, and weighted by the mean brightness,
    because the cavity is bright. On 80 ACDC patients and 4 others the result is 6 mm (median) and
    17 mm (95th percentile) from the centre of the expert's LV; the crop has room for 50 mm.

    Parameters
    ----------
    cine : ndarray, shape (T, Z, Y, X)
        T of at least 2.

    Returns
    -------
    tuple of float
        (row, column), pixels.
    """
    num_phases, num_slices = cine.shape[:2]
    # Every second pixel is enough for a centre, and takes a quarter of the time.
    stride = 2 if max(spacing_mm[1:]) < 2.5 else 1
    edge = num_slices // 5
    middle = np.ascontiguousarray(cine[:, edge : num_slices - edge, ::stride, ::stride])
    rows, cols = middle.shape[2:]
    step = (spacing_mm[1] * stride, spacing_mm[2] * stride)
    angle = 2 * np.pi * np.arange(num_phases) / num_phases
    real = np.zeros(middle.shape[1:], dtype=np.float32)
    imaginary = np.zeros_like(real)
    for phase, cosine, sine in zip(middle, np.cos(angle), np.sin(angle), strict=True):
        real += phase * np.float32(cosine)
        imaginary += phase * np.float32(sine)
    harmonic = np.hypot(real, imaginary)
    motion = np.minimum(harmonic, np.percentile(harmonic, CLIP_PERCENTILE)).mean(axis=0)
    blood = middle.mean(axis=(0, 1))
    blood = np.clip(blood / max(float(np.percentile(blood, 98)), 1e-12), 0.0, 1.0)
    sigma = (SMOOTHING_MM / step[0], SMOOTHING_MM / step[1])
    motion = gaussian_filter(motion, sigma) * gaussian_filter(blood, sigma)
    y = (np.arange(rows) - (rows - 1) / 2) * step[0]
    x = (np.arange(cols) - (cols - 1) / 2) * step[1]
    prior = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * PRIOR_MM**2))
    score = motion * prior
    score = np.clip(score - 0.5 * score.max(), 0.0, None)
    total = float(score.sum())
    if not total > 0:
        raise DataError("the cine does not move")
    return (
        float((score.sum(axis=1) @ np.arange(rows)) / total) * stride,
        float((score.sum(axis=0) @ np.arange(cols)) / total) * stride,
    )


def systole(
    cine: np.ndarray,
    centre_px: tuple[float, float],
    spacing_mm: tuple[float, float, float],
    diastole: int = 0,
) -> int:
    """Propose end-systole: the phase that differs most from ``diastole`` around the centre.

    Where the cavity is smallest most pixels have changed from blood to muscle (mean absolute
    difference within 45 mm).
    """
    reach = [max(2, round(SYSTOLE_RADIUS_MM / step)) for step in spacing_mm[1:]]
    box = tuple(
        slice(max(0, round(c) - r), round(c) + r + 1) for c, r in zip(centre_px, reach, strict=True)
    )
    num_slices = cine.shape[1]
    region = cine[:, num_slices // 5 : num_slices - num_slices // 5, *box]
    return int(np.abs(region - region[diastole]).mean(axis=(1, 2, 3)).argmax())


def place(
    cine: Stack,
    options: Preprocessing,
    *,
    phases: tuple[int, int] | None = None,
    diastole: int = 0,
) -> Placement:
    """Find where a cine's crop lies, and its ED and ES, from the images alone.

    ED is ``diastole``, the phase nearest to the R wave; ES the phase that differs most from it. An
    expert's ``phases`` win.

    Raises
    ------
    DataError
        If the cine does not move.
    """
    shape = (cine.pixels.shape[2], cine.pixels.shape[3])
    affine, turn = turn_upright(cine.affine, shape)
    pixels = apply_turn(cine.pixels, turn)
    dz, dy, dx = cine.spacing_mm
    if turn[0]:
        dy, dx = dx, dy
    centre = find_lv_centre(pixels, (dz, dy, dx))
    if phases is None:
        phases = (diastole, systole(pixels, centre, (dz, dy, dx), diastole))
    size = options.crop_px
    aligned = [
        _aligned(c, options.spacing_mm / s, size) for c, s in zip(centre, (dy, dx), strict=True)
    ]
    centre, step = (aligned[0][0], aligned[1][0]), (aligned[0][1], aligned[1][1])
    return Placement(
        shape, turn, centre, step, size, phases, crop_affine(affine, centre, step, size)
    )


def _aligned(centre: float, step: float, size: int) -> tuple[float, float]:
    """Return centre and step of one axis; on whole pixels where the pixels are of one size."""
    if abs(step - 1.0) * size / 2 > SAME_STEP_PX:
        return centre, step
    middle = (size - 1) / 2
    return round(centre - middle) + middle, 1.0


def labels_back(labels: np.ndarray, at: Placement) -> np.ndarray:
    """Bring labels of the crop back to the stack as acquired.

    The way of `client.preprocess.prepare` in reverse: linear interpolation of each class's
    membership, the largest wins; then the inverse turn. Where pixels were copied, they are copied
    back. Outside the crop is background.

    Parameters
    ----------
    labels : ndarray
        uint8 (..., size, size), canonical.

    Returns
    -------
    ndarray
        uint8 (..., Y, X).
    """
    turned = at.shape[::-1] if at.turn[0] else at.shape
    middle = (at.size - 1) / 2
    centre = tuple(
        ((n - 1) / 2 - c) / s + middle
        for n, c, s in zip(turned, at.centre_px, at.step_px, strict=True)
    )
    step = (1.0 / at.step_px[0], 1.0 / at.step_px[1])
    back = resample_labels(labels, NUM_CLASSES, (centre[0], centre[1]), step, turned)
    return undo_turn(back, at.turn)
