"""Whether an expert mask can be true: rules of anatomy, and the site's limits on them.

A mask that breaks a rule is set aside with its reason; the study stays. After the rules by which
Bai et al. 2018 (J Cardiovasc Magn Reson 20:65) screened 5,008 subjects, and what else has been seen
in public sets: contours saved with another image, slices forgotten, islands left by a brush.

Axes: P phases (ED, ES), Z slices base to apex, Y rows, X columns.
"""

import numpy as np
from scipy.ndimage import label

from client.quality_limits import MaskLimits
from shared_models.labels import CLASS_NAMES, LV, MYO, RV

__all__ = ["mask_problems"]

MIN_PART_PIXELS = 50


def mask_problems(labels: np.ndarray, limits: MaskLimits, *, partial: bool = False) -> list[str]:
    """Return what keeps a mask out, each a few words without a figure of the patient's.

    Parameters
    ----------
    labels : ndarray
        uint8 (2, Z, Y, X), canonical labels.
    limits : MaskLimits
        Of the site.
    partial : bool
        Look at the left ventricle only; the other classes were not drawn everywhere.
    """
    found = [
        f"fewer than {limits.min_pixels} pixels of {CLASS_NAMES[cls]} at {phase}"
        for at, phase in enumerate(("end-diastole", "end-systole"))
        for cls in ((LV,) if partial else (LV, MYO, RV))
        if int((labels[at] == cls).sum()) < limits.min_pixels
    ]
    if found:
        return found
    with_lv = [(phase == LV).any(axis=(1, 2)) for phase in labels]
    if any(_holes(slices) for slices in with_lv):
        found.append("left ventricle missing in a slice between others")
    if int(with_lv[0].sum()) < limits.min_lv_slices:
        found.append(f"left ventricle in fewer than {limits.min_lv_slices} slices")
    middle = np.flatnonzero(with_lv[0])
    at = labels[0, middle[len(middle) // 2]]
    if not partial and not ((at == MYO).any() and (at == RV).any()):
        found.append("no right ventricle or no myocardium in the middle slice")
    if int((labels[1] == LV).sum()) >= int((labels[0] == LV).sum()):
        found.append("left ventricle not smaller at end-systole")
    if _largest_part(labels) < limits.min_largest_part:
        found.append("left ventricle in pieces within a slice")
    return found


def _holes(slices: np.ndarray) -> bool:
    at = np.flatnonzero(slices)
    return bool(len(at) and len(at) < at[-1] - at[0] + 1)


def _largest_part(labels: np.ndarray) -> float:
    """Return the least share of a slice's cavity that is one piece.

    A plane at the base may cut the right ventricle and the wall twice; the cavity is round.
    """
    least = 1.0
    neighbours = np.ones((3, 3), int)
    for plane in labels.reshape(-1, *labels.shape[2:]):
        cavity = plane == LV
        total = int(cavity.sum())
        if total >= MIN_PART_PIXELS:
            parts = label(cavity, neighbours)[0]
            least = min(least, int(np.bincount(parts.ravel())[1:].max()) / total)
    return least
