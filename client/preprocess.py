"""Every hospital's stacks on common ground: turned, centred on the LV, resampled, scaled.

Nothing here looks at a mask to place or scale an image: a patient without masks, at a hospital that
never trained, goes through exactly the same steps.

Axes: T phases, Z slices base to apex, Y rows, X columns; phase 0 is ED, 1 is ES in the result.
"""

from dataclasses import dataclass

import numpy as np

from client.geometry import apply_turn, resample_labels, resample_plane, resample_rows_columns
from client.placement import Stack, place
from protocol.config import Preprocessing
from protocol.errors import DataError
from shared_models.labels import NUM_CLASSES

__all__ = ["Prepared", "normalise", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """What a network sees of one patient; the arrays of ``client.cohort.Patient``.

    ``partial``: the labels lack a class that was not drawn, so that no network may train on them.
    """

    cine: np.ndarray
    labels: np.ndarray | None
    lge: np.ndarray | None
    lge_present: np.ndarray
    spacing_mm: tuple[float, float, float]
    partial: bool = False


def normalise(stack: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """Map two intensity percentiles of a series to 0 and 1, and clip.

    Stored values of two vendors, and of two days, have no common scale. Pixels of exactly 0 take no
    part: they are padding.

    Raises
    ------
    DataError
        If the series is flat.
    """
    seen = stack[stack != 0]
    low, high = np.percentile(seen if seen.size else stack, percentiles)
    if not high > low:
        raise DataError("all pixels of the series are alike")
    return np.clip((stack - low) / (high - low), 0.0, 1.0).astype(np.float32)


def prepare(
    cine: Stack,
    options: Preprocessing,
    *,
    labels: np.ndarray | None = None,
    phases: tuple[int, int] | None = None,
    diastole: int = 0,
    lge: Stack | None = None,
    drawn_on: np.ndarray | None = None,
) -> Prepared:
    """Bring one patient to the common grid.

    Parameters
    ----------
    cine : Stack
        The whole cine, or ED and ES only.
    labels : ndarray, optional
        uint8 (2, Z, Y, X) on the cine's grid, canonical labels, ED then ES.
    phases : tuple of int, optional
        Phase indices of ED and ES; needed with ``labels``, else found from the images.
    diastole : int
        The phase nearest to the R wave.
    lge : Stack, optional
        One phase; sampled on the cine's grid through patient coordinates.
    drawn_on : ndarray, optional
        (2, Z, Y, X): ED and ES as the expert saw them, where that is not the cine's phases.

    Raises
    ------
    DataError
        If the cine does not move or is flat.
    """
    at = place(cine, options, phases=phases, diastole=diastole)
    pair = cine.pixels[list(at.phases)] if drawn_on is None else drawn_on
    window = (at.centre_px, at.step_px, at.size)
    crop = resample_rows_columns(apply_turn(pair, at.turn), *window)
    crop_labels = None
    if labels is not None:
        crop_labels = resample_labels(apply_turn(labels, at.turn), NUM_CLASSES, *window)
    dz = cine.spacing_mm[0]
    present = np.zeros(crop.shape[1], dtype=bool)
    lge_crop = None
    if lge is not None:
        lge_crop, present = _on_cine_grid(lge, at.affine, dz, crop)
        lge_crop = normalise(lge_crop, options.percentiles) if present.any() else None
    spacing = (dz, options.spacing_mm, options.spacing_mm)
    return Prepared(normalise(crop, options.percentiles), crop_labels, lge_crop, present, spacing)


def _on_cine_grid(
    lge: Stack, affine: np.ndarray, dz: float, like: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sample LGE slices on the cine crop: the nearest within half a cine spacing, or zeros."""
    num_slices, size = like.shape[1], like.shape[2]
    to_lge = np.linalg.inv(lge.affine) @ affine
    out = np.zeros((num_slices, size, size), dtype=np.float32)
    present = np.zeros(num_slices, dtype=bool)
    middle = (size - 1) / 2
    for z in range(num_slices):
        depth = float(to_lge[2] @ (middle, middle, z, 1.0))
        nearest = round(depth)
        inside = 0 <= nearest < lge.pixels.shape[1]
        # A hair more than half, for two grids that are interleaved exactly.
        if not inside or abs(depth - nearest) * lge.spacing_mm[0] > dz * 0.501:
            continue
        columns = to_lge[:, [0, 1, 3]].copy()
        columns[:, 2] += to_lge[:, 2] * z
        out[z] = resample_plane(lge.pixels[0, nearest], columns[[1, 0]], size)
        present[z] = True
    return out, present
