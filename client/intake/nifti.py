"""NIfTI masks beside a DICOM cine: matched by position, never by array order.

NIfTI counts millimetres to the right, anterior, superior (RAS) where DICOM counts to the left,
posterior, superior (LPS), and its array axes are columns, rows, slices. Files are named after the
patient: ``NUMBER_ed.nii.gz`` and ``NUMBER_es.nii.gz``, ``NUMBER_frameNN.nii.gz`` (counted from 1; a
suffix ``_gt`` is allowed), or one ``NUMBER.nii.gz`` with all cardiac phases.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from client.intake.nifti_file import open_nifti
from client.intake.walking import files_below
from client.masks import Labelled, map_labels, pick_phases
from protocol.errors import DataError

__all__ = ["RAS_TO_LPS", "Grid", "index_nifti", "onto_grid", "read_nifti"]

NAME = re.compile(
    r"^(?P<patient>.+?)(?:_(?:(?P<phase>ed|es)|frame(?P<frame>\d+)))?(?:_gt)?\.nii(?:\.gz)?$",
    re.IGNORECASE,
)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
GRID_TOLERANCE_PX = 0.25


class Grid(Protocol):
    """A cine's grid.

    Shape (T, Z, Y, X), the affine of (column, row, slice, 1) to LPS mm, and the phase of ED.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def affine(self) -> np.ndarray: ...
    @property
    def diastole(self) -> int: ...


def index_nifti(folder: Path) -> tuple[dict[str, list[Path]], int]:
    """Return the NIfTI files below a folder by patient number, and how many files are no NIfTI."""
    by_patient: dict[str, list[Path]] = {}
    others = 0
    for path in map(Path, files_below(folder)):
        if path.is_symlink() or not path.is_file():
            continue
        match = NAME.match(path.name)
        if match:
            by_patient.setdefault(match["patient"], []).append(path)
        else:
            others += 1
    return by_patient, others


def onto_grid(values: np.ndarray, affine_ras: np.ndarray, plan: Grid) -> np.ndarray:
    """Bring NIfTI voxels (columns, rows, slices) to the cine's (Z, Y, X).

    Parameters
    ----------
    values : ndarray, shape (I, J, K)
    affine_ras : ndarray, shape (4, 4)
        Of the file, to RAS mm.

    Raises
    ------
    DataError
        If the voxels do not coincide with the cine's up to axis order and direction.
    """
    to_cine = np.linalg.inv(plan.affine) @ RAS_TO_LPS @ affine_ras
    turn = np.rint(to_cine[:3, :3])
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        raise DataError("mask on another grid than its images")
    size = np.array(plan.shape[:0:-1])
    corners = np.array([[0, 0, 0, 1], [n - 1 for n in values.shape] + [1]]) @ to_cine.T
    low, high = corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)
    if np.abs(low).max() > GRID_TOLERANCE_PX or np.abs(high - size + 1).max() > GRID_TOLERANCE_PX:
        raise DataError("mask on another grid than its images")
    # Row i of `turn` says which file axis runs along the cine's axis i (x, y, z), and which way.
    axes = [int(np.abs(row).argmax()) for row in turn]
    out = np.transpose(values, axes)
    for axis, row in enumerate(turn):
        if row.sum() < 0:
            out = np.flip(out, axis)
    return np.transpose(out, (2, 1, 0))


def read_nifti(
    paths: Sequence[Path],
    plan: Grid,
    convention: Mapping[int, str],
    systole_phase: int,
) -> Labelled:
    """Read a patient's NIfTI masks onto the frames of the short-axis cine.

    Parameters
    ----------
    systole_phase : int
        The phase that a file named ``_es`` means; ``_ed`` is the cine's nearest to the R wave.

    Raises
    ------
    DataError
        If a file is damaged or on another grid, a value is not mapped, or fewer than two phases are
        labelled.
    """
    by_phase: dict[int, np.ndarray] = {}
    num_phases = plan.shape[0]
    for path in paths:
        values, affine = open_nifti(path)
        values = np.rint(values).clip(-1, 32_767).astype(np.int16)
        if values.ndim == 4:
            for t, volume in _phases(values, plan, systole_phase):
                by_phase[t] = map_labels(onto_grid(volume, affine, plan), convention)
            continue
        if values.ndim != 3:
            raise DataError("mask is neither a volume nor a series of volumes")
        match = NAME.match(path.name)
        phase, frame = (match["phase"], match["frame"]) if match else (None, None)
        if frame is not None and not 1 <= int(frame) <= num_phases:
            raise DataError("mask of a cardiac phase that the cine does not have")
        if frame is None and phase is None:
            raise DataError("mask whose name says neither ED nor ES nor a frame")
        is_diastole = phase is not None and phase.lower() == "ed"
        t = (
            int(frame) - 1
            if frame is not None
            else (plan.diastole if is_diastole else systole_phase)
        )
        by_phase[t] = map_labels(onto_grid(values, affine, plan), convention)
    return pick_phases(by_phase)


def _phases(values: np.ndarray, plan: Grid, systole_phase: int) -> list[tuple[int, np.ndarray]]:
    num_phases = plan.shape[0]
    if values.shape[3] == 2 and num_phases != 2:
        return [(plan.diastole, values[..., 0]), (systole_phase, values[..., 1])]
    if values.shape[3] != num_phases:
        raise DataError("mask with another number of cardiac phases than the cine")
    return [(t, values[..., t]) for t in range(num_phases)]
