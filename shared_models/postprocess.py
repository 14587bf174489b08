"""What an anatomist would object to in a predicted label map: stray islands, missing parts.

Shapes: T phases (optional), Z slices, Y rows, X columns.
"""

import numpy as np
from scipy import ndimage

from shared_models.labels import CLASS_NAMES, LV, MYO, RV

__all__ = ["clean_labels", "quality_problems"]

MIN_CLASS_VOXELS = 10
MIN_LV_SLICES = 6


def clean_labels(labels: np.ndarray) -> np.ndarray:
    """Keep the largest connected piece of each class, per phase; the rest becomes background.

    Pieces touching by a corner count as connected, so that a stack whose slices are shifted by
    breathing does not fall apart.

    Parameters
    ----------
    labels : ndarray
        (Z, Y, X) or (T, Z, Y, X) with the project's labels.

    Returns
    -------
    ndarray
        A new array of the same shape and type.
    """
    if labels.ndim == 4:
        return np.stack([clean_labels(volume) for volume in labels])
    cleaned = np.zeros_like(labels)
    for label in CLASS_NAMES:
        pieces, count = ndimage.label(labels == label, structure=np.ones((3, 3, 3)))
        if count:
            sizes = np.bincount(pieces.ravel())[1:]
            cleaned[pieces == 1 + int(sizes.argmax())] = label
    return cleaned


def quality_problems(labels: np.ndarray) -> tuple[str, ...]:
    """Name what makes a segmentation implausible; an empty tuple means it may be measured.

    Parameters
    ----------
    labels : ndarray
        (Z, Y, X) of one phase, slices in order.

    References
    ----------
    Bai et al., J Cardiovasc Magn Reson 2018;20:65, automated quality control: every class at least
    10 voxels, the LV in at least 6 neighbouring slices, RV and myocardium in the middle of the LV.
    """
    problems = []
    for label, name in CLASS_NAMES.items():
        if np.count_nonzero(labels == label) < MIN_CLASS_VOXELS:
            problems.append(f"{name} has fewer than {MIN_CLASS_VOXELS} voxels")
    has_lv = (labels == LV).any(axis=(1, 2))
    runs, count = ndimage.label(has_lv)
    longest = int(np.bincount(runs)[1:].max()) if count else 0
    if longest < MIN_LV_SLICES:
        problems.append(f"LV in {longest} neighbouring slices, fewer than {MIN_LV_SLICES}")
    if count:
        middle = labels[int(np.flatnonzero(has_lv)[has_lv.sum() // 2])]
        for label in (MYO, RV):
            if not (middle == label).any():
                problems.append(f"no {CLASS_NAMES[label]} in the middle slice of the LV")
    return tuple(problems)
