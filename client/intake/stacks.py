"""From unordered frames to a stack: phases by trigger time, slices and spacing by position.

Axes: T phases, Z slices base to apex, Y rows, X columns. An affine maps (column, row, slice, 1) to
LPS mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.intake.frame import Frame
from client.intake.phases import (
    Blend,
    Cycle,
    common_phases,
    cycle_of,
    cyclic_distance,
    onto_phases,
)
from client.intake.planes import planes
from protocol.errors import DataError

__all__ = ["BASE_TO_APEX", "StackLimits", "StackPlan", "plan_stack"]

# The heart's long axis, base to apex, points left, anterior and inferior in every patient.
BASE_TO_APEX = np.array([1.0, -1.0, -1.0]) / np.sqrt(3.0)
# Planners place slices to a tenth of a millimetre; what differs by more is worth a word.
NAMED_UNEVENNESS = 0.05


@dataclass(frozen=True)
class StackLimits:
    """How incomplete a stack may be.

    Attributes
    ----------
    missing_slices : int
        Gaps between slices, in slices, that are filled from their neighbours.
    missing_phases : float
        Share of the usual number of phases that a slice may lack, in [0, 1).
    unevenness : float
        By how much the distance of two slices may differ from a multiple of the usual one, as a
        share of it, in [0, .5).
    """

    missing_slices: int = 0
    missing_phases: float = 0.5
    unevenness: float = 0.2


DEFAULT_LIMITS = StackLimits()


@dataclass(frozen=True)
class StackPlan:
    """Which frame stands where, before any pixel is read. Axis A: acquired slices, base to apex.

    Attributes
    ----------
    frames : tuple of tuple of Frame
        ``frames[t][a]``: the frame at, or nearest to, common phase t of acquired slice a.
    affine : ndarray, shape (4, 4)
        (column, row, slice, 1) to LPS mm.
    spacing_mm : tuple of float
        (dz, dy, dx); dz is centre to centre along the normal, not the thickness.
    shift_px : ndarray of int, shape (A, 2)
        By how many (rows, columns) a slice's own origin differs from the affine's, rounded.
    at : tuple of int
        Slice of the grid at which each acquired slice stands; empty where none is missing.
    cycles : tuple of Cycle
        All frames of each acquired slice.
    blends : tuple of Blend
        How each acquired slice shows the common phases.
    phases : tuple of float
        Common phases, in [0, 1) of a beat, increasing; empty where unknown.
    notes : tuple of str
        What was amiss and mended, in words.
    """

    frames: tuple[tuple[Frame, ...], ...]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    shift_px: np.ndarray
    at: tuple[int, ...] = ()
    cycles: tuple[Cycle, ...] = ()
    blends: tuple[Blend, ...] = ()
    phases: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def slices(self) -> tuple[int, ...]:
        """Slice of the grid at which each acquired slice stands, (A,)."""
        return self.at or tuple(range(len(self.frames[0])))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, Z, Y, X)."""
        first = self.frames[0][0]
        return len(self.frames), self.slices[-1] + 1, first.rows, first.cols

    @property
    def diastole(self) -> int:
        """The phase nearest to the R wave, where the ventricles are full."""
        return int(cyclic_distance(np.array(self.phases), 0.0).argmin()) if self.phases else 0


def plan_stack(frames: Sequence[Frame], limits: StackLimits = DEFAULT_LIMITS) -> StackPlan:
    """Arrange the frames of one short-axis stack.

    Raises
    ------
    DataError
        If phases cannot be ordered, or slices or phases are missing or uneven beyond the limits.
        The sentence is the reason of the refusal.
    """
    groups = planes(frames)
    normal = groups[0][0].normal
    if normal @ BASE_TO_APEX < 0:
        groups.reverse()
    first = groups[0][0]
    at, dz, notes = _levels(groups, normal, limits)
    cycles = [cycle_of(group) for group in groups]
    notes += _phase_notes(cycles, limits)
    common = common_phases(cycles)
    blends = [onto_phases(cycle, common) for cycle in cycles]
    if any(blend.mixes for blend in blends):
        notes.append("slices at other phases of the beat, interpolated to the common ones")
    shown = [
        [cycle.frames[int(j)] for j in blend.nearest]
        for cycle, blend in zip(cycles, blends, strict=True)
    ]
    dy, dx = first.pixel_spacing_mm
    along_z = normal * dz * (1.0 if normal @ BASE_TO_APEX >= 0 else -1.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.along_row * dx, first.along_column * dy
    affine[:3, 2], affine[:3, 3] = along_z, first.position_mm
    aside = np.array([group[0].position_mm for group in groups]) - first.position_mm
    shift = np.stack([aside @ first.along_column / dy, aside @ first.along_row / dx], axis=1)
    return StackPlan(
        frames=tuple(zip(*shown, strict=True)),
        affine=affine,
        spacing_mm=(dz, float(dy), float(dx)),
        shift_px=np.rint(shift).astype(int),
        at=at,
        cycles=tuple(cycles),
        blends=tuple(blends),
        phases=tuple(float(p) for p in common),
        notes=tuple(notes),
    )


def _levels(
    groups: list[list[Frame]], normal: np.ndarray, limits: StackLimits
) -> tuple[tuple[int, ...], float, list[str]]:
    """Return the grid slice of each plane, the distance of two, mm, and what is amiss."""
    if len(groups) == 1:
        return (0,), float(groups[0][0].thickness_mm), []
    centres = np.array([group[0].centre_mm for group in groups])
    steps = np.abs(np.diff(centres @ normal))
    dz = float(np.median(steps))
    counts = np.maximum(np.rint(steps / dz), 1).astype(int)
    unevenness = float((np.abs(steps - counts * dz) / dz).max())
    missing = int((counts - 1).sum())
    if unevenness > limits.unevenness:
        raise DataError("slices are unevenly spaced, beyond quality.max_unevenness of site.yaml")
    if missing > limits.missing_slices:
        raise DataError(
            "slices are unevenly spaced: between others more are missing than "
            "quality.max_missing_slices of site.yaml allows"
        )
    notes = []
    if missing:
        notes.append("a slice between others is missing, interpolated from its neighbours")
    if unevenness > NAMED_UNEVENNESS:
        notes.append("slices are unevenly spaced, taken at their mean distance")
        dz = float(steps.sum() / counts.sum())
    return (0, *(int(n) for n in counts.cumsum())), dz, notes


def _phase_notes(cycles: list[Cycle], limits: StackLimits) -> list[str]:
    lengths = [len(cycle.frames) for cycle in cycles]
    usual = max(set(lengths), key=lambda n: (lengths.count(n), n))
    if min(lengths) < (1.0 - limits.missing_phases) * usual:
        raise DataError(
            "a slice lacks more cardiac phases than quality.max_missing_phases of site.yaml allows"
        )
    notes = []
    if min(lengths) < usual:
        notes.append("a slice has fewer cardiac phases than the others")
    if any(cycle.gaps for cycle in cycles):
        notes.append("a cardiac phase between others is missing")
    return notes
