"""The square around the left ventricle that the survival network sees."""

import numpy as np

from client.cohort import Patient
from protocol.survival_config import Prognosis
from shared_models.labels import LV, MYO

__all__ = ["crop_heart"]


def crop_heart(
    patient: Patient, labels: np.ndarray, section: Prognosis
) -> tuple[np.ndarray, np.ndarray]:
    """Return LGE, ED and ES around the segmented left ventricle, and which slices exist.

    The square is centred on the ventricle at end-diastole, the same in all slices, and padded with
    zeros at the edge; where the network found no ventricle it stays at the centre of the image.

    Parameters
    ----------
    patient : Patient
        Cine (2, Z, Y, X) and, where acquired, LGE (Z, Y, X) on the same grid.
    labels : numpy.ndarray
        uint8 (2, Z, Y, X), predicted.
    section : Prognosis
        ``crop_px`` and ``max_slices``.

    Returns
    -------
    images : numpy.ndarray
        float32 (3, max_slices, crop_px, crop_px).
    present : numpy.ndarray
        float32 (max_slices,), 1 for a slice of the stack, 0 for padding.
    """
    size, max_slices = section.crop_px, section.max_slices
    heart = (labels[0] == LV) | (labels[0] == MYO)
    weight = heart.sum(axis=0)
    height, width = weight.shape
    if weight.sum() > 0:
        row = round(float(weight.sum(axis=1) @ np.arange(height)) / float(weight.sum()))
        column = round(float(weight.sum(axis=0) @ np.arange(width)) / float(weight.sum()))
    else:
        row, column = height // 2, width // 2
    lge = np.zeros_like(patient.cine[0]) if patient.lge is None else patient.lge
    stack = np.stack([lge, patient.cine[0], patient.cine[1]])
    stack, num_slices = _middle_slices(stack, heart, max_slices)
    half = size // 2
    padded = np.pad(stack, ((0, 0), (0, max_slices - num_slices), (half, half), (half, half)))
    present = (np.arange(max_slices) < num_slices).astype(np.float32)
    return padded[:, :, row : row + size, column : column + size].astype(np.float32), present


def _middle_slices(stack: np.ndarray, heart: np.ndarray, max_slices: int) -> tuple[np.ndarray, int]:
    """Keep at most ``max_slices`` slices around the middle of the ventricle."""
    num_slices = stack.shape[1]
    if num_slices <= max_slices:
        return stack, num_slices
    seen = np.flatnonzero(heart.any(axis=(1, 2)))
    middle = (seen[0] + seen[-1]) / 2 if len(seen) else (num_slices - 1) / 2
    start = int(np.clip(round(middle - (max_slices - 1) / 2), 0, num_slices - max_slices))
    return stack[:, start : start + max_slices], max_slices
