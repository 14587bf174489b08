"""Labels as an expert drew them, frame by frame, brought to the phases and slices of the cine."""

import numpy as np

from client.intake.images import moved
from client.intake.phases import cyclic_distance
from client.intake.stacks import StackPlan
from client.masks import Labelled, pick_phases
from protocol.errors import DataError

__all__ = ["Drawn", "Place", "by_phase", "places"]

Place = tuple[int, int]
"""Acquired slice, and frame of its cycle."""
Drawn = dict[Place, np.ndarray]
"""Canonical labels uint8 (Y, X) of a frame, on its own pixels."""


def places(plan: StackPlan) -> dict[tuple[str, int], Place]:
    """Return where each frame of the cine stands, by SOP instance and frame number from 0."""
    return {
        (frame.sop_uid, frame.frame_index): (a, j)
        for a, cycle in enumerate(plan.cycles)
        for j, frame in enumerate(cycle.frames)
    }


def by_phase(drawn: Drawn, plan: StackPlan) -> Labelled:
    """Gather planes into phases, and pick ED and ES among them.

    Raises
    ------
    DataError
        If fewer than two phases of the cine are labelled.
    """
    centres, chosen = _groups(drawn, plan)
    by_group: dict[int, np.ndarray] = {}
    for (group, a), j in chosen.items():
        volume = by_group.setdefault(group, np.zeros(plan.shape[1:], dtype=np.uint8))
        volume[plan.slices[a]] = moved(drawn[a, j], plan.shift_px[a], outside=0)
    picked = pick_phases(by_group)
    common = np.array(plan.phases)
    phases = [int(cyclic_distance(common, centres[group]).argmin()) for group in picked.phases]
    if phases[0] == phases[1]:
        raise DataError("mask whose phases are one phase of the cine")
    drawn_on = {
        (p, a): plan.cycles[a].frames[j]
        for (group, a), j in chosen.items()
        for p in (0, 1)
        if group == picked.phases[p] and not _shown(plan, phases[p], a, j)
    }
    return Labelled(picked.labels, (phases[0], phases[1]), drawn_on)


def _groups(drawn: Drawn, plan: StackPlan) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """Gather planes: those of one slice apart, of different slices with the nearest in phase.

    An expert may take end-systole from one frame in most slices and from the next in another; all
    of them are end-systole.

    Returns
    -------
    centres : ndarray
        Phase of each group, that of the slice with most planes.
    chosen : dict
        (group, acquired slice) to the frame of its cycle that was drawn on.
    """
    of_slice: dict[int, list[int]] = {}
    for (a, j), labels in sorted(drawn.items()):
        if labels.any():
            of_slice.setdefault(a, []).append(j)
    if not of_slice:
        raise DataError("mask at fewer than two cardiac phases")
    fullest = max(of_slice, key=lambda a: len(of_slice[a]))
    centres = plan.cycles[fullest].phases[of_slice[fullest]]
    chosen: dict[tuple[int, int], int] = {}
    nearest: dict[tuple[int, int], float] = {}
    for a, frames in of_slice.items():
        for j in frames:
            away = cyclic_distance(plan.cycles[a].phases[j], centres)
            at = (int(away.argmin()), a)
            if float(away.min()) < nearest.get(at, 1.0):
                chosen[at], nearest[at] = j, float(away.min())
    return centres, chosen


def _shown(plan: StackPlan, t: int, a: int, j: int) -> bool:
    blend = plan.blends[a]
    return bool(blend.weight[t] == 0 and blend.low[t] == j)
