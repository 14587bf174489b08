"""From unordered frames to a stack: phases by trigger time, slices and spacing by position.

Axes: T phases, Z slices base to apex, Y rows, X columns. An affine maps (column, row, slice, 1) to
LPS mm.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.intake.frame import Frame
from client.intake.planes import planes
from protocol.errors import DataError

__all__ = ["BASE_TO_APEX", "StackPlan", "plan_stack"]

# The heart's long axis, base to apex, points left, anterior and inferior in every patient.
BASE_TO_APEX = np.array([1.0, -1.0, -1.0]) / np.sqrt(3.0)
SPACING_TOLERANCE = 0.2
MIN_PHASE_SHARE = 0.5


@dataclass(frozen=True)
class StackPlan:
    """Which frame stands where, before any pixel is read.

    Attributes
    ----------
    frames : tuple of tuple of Frame
        ``frames[t][z]``.
    affine : ndarray, shape (4, 4)
        (column, row, slice, 1) to LPS mm.
    spacing_mm : tuple of float
        (dz, dy, dx); dz is centre to centre along the normal, not the thickness.
    shift_px : ndarray, shape (Z, 2)
        By how many (rows, columns) a slice's own origin differs from the affine's.
    """

    frames: tuple[tuple[Frame, ...], ...]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    shift_px: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, Z, Y, X)."""
        first = self.frames[0][0]
        return len(self.frames), len(self.frames[0]), first.rows, first.cols


def _ordered(group: Sequence[Frame]) -> list[Frame]:
    """One plane's frames in order of time.

    Ranks, not times, are compared between slices: on GE every breath-hold has its own RR interval,
    so that no two slices share a trigger time.
    """
    if len(group) == 1:
        return list(group)
    for key in (lambda f: f.trigger_ms, lambda f: f.temporal_index):
        times = [key(frame) for frame in group]
        if np.isfinite(times).all() and len(set(times)) == len(times):
            return sorted(group, key=key)
    raise DataError("phases of a slice cannot be told apart by trigger time")


def _common_phases(groups: list[list[Frame]]) -> tuple[tuple[Frame, ...], ...]:
    """Bring all slices to the commonest number of phases by the nearest relative phase."""
    counts = Counter(len(group) for group in groups)
    num_phases = max(counts, key=lambda n: (counts[n], n))
    if min(counts) < MIN_PHASE_SHARE * num_phases:
        raise DataError("a slice lacks more than half of the cardiac phases")
    columns = []
    for group in groups:
        ordered = _ordered(group)
        at = np.arange(num_phases) * len(ordered) / num_phases
        columns.append([ordered[min(round(float(i)), len(ordered) - 1)] for i in at])
    return tuple(zip(*columns, strict=True))


def plan_stack(frames: Sequence[Frame]) -> StackPlan:
    """Arrange the frames of one short-axis stack.

    Raises
    ------
    DataError
        If phases cannot be ordered, a slice has too few of them, or the slices are unevenly spaced
        (one is missing). The sentence is the reason of the refusal.
    """
    groups = planes(frames)
    normal = groups[0][0].normal
    if normal @ BASE_TO_APEX < 0:
        groups.reverse()
    centres = np.array([group[0].centre_mm for group in groups])
    step = np.abs(np.diff(centres @ normal))
    dz = float(np.median(step)) if len(step) else float(groups[0][0].thickness_mm)
    if len(step) and float(np.abs(step - dz).max()) > SPACING_TOLERANCE * dz:
        raise DataError("slices are unevenly spaced; one is missing or was planned apart")
    first = groups[0][0]
    dy, dx = first.pixel_spacing_mm
    along_z = normal * dz * (1.0 if normal @ BASE_TO_APEX >= 0 else -1.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.along_row * dx, first.along_column * dy
    affine[:3, 2], affine[:3, 3] = along_z, first.position_mm
    origins = np.array([group[0].position_mm for group in groups])
    aside = origins - origins[0]
    shift = np.stack([aside @ first.along_column / dy, aside @ first.along_row / dx], axis=1)
    return StackPlan(_common_phases(groups), affine, (dz, float(dy), float(dx)), shift)
