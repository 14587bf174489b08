"""Dice, Hausdorff and mean surface distance between two label maps of one patient.

Shapes: Z slices, Y rows, X columns. A class that neither map holds has no agreement to measure:
every figure is then NaN and is left out of means. A class that only one map holds has Dice 0 and no
surface distance (NaN), since no distance to an empty surface exists; report how often that happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

__all__ = ["Agreement", "agreement", "dice", "surface_distances"]


@dataclass(frozen=True)
class Agreement:
    """Agreement of one class in one volume.

    Attributes
    ----------
    dice : float
        In [0, 1], higher is better; NaN if the class is in neither map.
    hd95_mm : float
        95th percentile Hausdorff distance, mm, lower is better; NaN if either map lacks the class.
    assd_mm : float
        Average symmetric surface distance, mm, lower is better; NaN likewise.
    """

    dice: float
    hd95_mm: float
    assd_mm: float


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return ``2 |A and B| / (|A| + |B|)`` of two boolean masks; NaN if both are empty."""
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(reference))
    if total == 0:
        return float("nan")
    return 2.0 * int(np.count_nonzero(predicted & reference)) / total


def surface_distances(
    predicted: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances from each surface to the other, mm.

    The surface of a mask is the set of its voxels with a face neighbour outside it; the edge of the
    volume counts as outside. Distances are between voxel centres.

    Parameters
    ----------
    predicted, reference : ndarray
        Boolean masks of one shape, neither empty.
    spacing_mm : sequence of float
        Voxel spacing along each axis; for (Z, Y, X) the slice distance comes first.

    Returns
    -------
    tuple of ndarray
        Distance of every voxel of the predicted surface to the reference surface, and the reverse.
    """
    box = ndimage.find_objects((predicted | reference).astype(np.uint8))[0]
    surfaces = []
    for mask in (predicted[box], reference[box]):
        surfaces.append(mask & ~ndimage.binary_erosion(mask, border_value=0))
    ours, theirs = surfaces
    to_theirs = ndimage.distance_transform_edt(~theirs, sampling=spacing_mm)
    to_ours = ndimage.distance_transform_edt(~ours, sampling=spacing_mm)
    return to_theirs[ours], to_ours[theirs]


def agreement(
    predicted: np.ndarray,
    reference: np.ndarray,
    label: int,
    spacing_mm: Sequence[float],
) -> Agreement:
    """Compare one class of two label maps.

    Parameters
    ----------
    predicted, reference : ndarray
        (Z, Y, X) integer label maps of one shape.
    label : int
        The class.
    spacing_mm : sequence of float
        (dz, dy, dx).

    Returns
    -------
    Agreement
        HD95 is the larger of the two directed 95th percentiles; ASSD averages over the points of
        both surfaces together.
    """
    a, b = predicted == label, reference == label
    overlap = dice(a, b)
    if not (a.any() and b.any()):
        return Agreement(overlap, float("nan"), float("nan"))
    forth, back = surface_distances(a, b, spacing_mm)
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    return Agreement(overlap, float(hd95), float(np.concatenate((forth, back)).mean()))
