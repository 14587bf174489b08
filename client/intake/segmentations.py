"""DICOM SEG: whose mask, of which image, in which segment; read once, mapped by referenced image.

A mask is never placed by slice order or file name: each of its planes names the image it was drawn
on, and must lie where that image lies.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.intake.frame import Frame
from client.intake.headers import UNREADABLE
from client.intake.images import moved
from client.intake.phases import cyclic_distance
from client.intake.quiet import quietly
from client.intake.stacks import StackPlan
from client.intake.walking import files_below
from client.masks import Labelled, map_labels, pick_phases
from protocol.errors import DataError

__all__ = ["index_segmentations", "read_segmentations"]

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
POSITION_TOLERANCE_MM = 1.0

# Canonical labels (Y, X) by (acquired slice, frame of its cycle).
Drawn = dict[tuple[int, int], np.ndarray]


def index_segmentations(folder: Path) -> tuple[dict[str, list[Path]], int]:
    """Return the SEG files below a folder by patient number, and how many files are no SEG."""
    by_patient: dict[str, list[Path]] = {}
    others = 0
    for path in map(Path, files_below(folder)):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            with quietly():
                dataset = dcmread(
                    path, stop_before_pixels=True, specific_tags=["SOPClassUID", "PatientID"]
                )
            is_segmentation = dataset.get("SOPClassUID") in (SEGMENTATION, LABEL_MAP)
            patient = str(dataset.get("PatientID") or "").strip()
        except UNREADABLE:
            is_segmentation, patient = False, ""
        if is_segmentation and patient:
            by_patient.setdefault(patient, []).append(path)
        else:
            others += 1
    return by_patient, others


def read_segmentations(
    paths: Sequence[Path], plan: StackPlan, convention: Mapping[int, str]
) -> Labelled:
    """Read a patient's masks onto the frames of the short-axis cine.

    Parameters
    ----------
    paths : sequence of Path
        The patient's SEG files.
    plan : StackPlan
        The cine, as chosen from the images.
    convention : mapping of int to str
        Segment number to LV, MYO or RV.

    Raises
    ------
    DataError
        If a mask is on another grid than its image, refers to no image of the cine, has segments
        that are not mapped, or fewer than two phases are labelled.
    """
    place = {
        (frame.sop_uid, frame.frame_index): (a, j)
        for a, cycle in enumerate(plan.cycles)
        for j, frame in enumerate(cycle.frames)
    }
    drawn: Drawn = {}
    for path in paths:
        try:
            with quietly():
                dataset = dcmread(path)
                _add(dataset, plan, place, convention, drawn)
        except UNREADABLE as error:
            raise DataError("mask file is damaged") from error
    if not drawn:
        raise DataError("mask refers to no image of the short-axis cine")
    return _by_phase(drawn, plan)


def _add(
    dataset: Dataset,
    plan: StackPlan,
    place: Mapping[tuple[str, int], tuple[int, int]],
    convention: Mapping[int, str],
    drawn: Drawn,
) -> None:
    """Add one SEG file's planes to ``drawn``."""
    rows, cols = plan.shape[2:]
    pixels = dataset.pixel_array
    if pixels.shape[-2:] != (rows, cols):
        raise DataError("mask on another grid than its images")
    planes = pixels.reshape(-1, rows, cols)
    is_map = dataset.SOPClassUID == LABEL_MAP
    threshold = 1.0
    if str(dataset.get("SegmentationType", "")) == "FRACTIONAL":
        threshold = float(dataset.get("MaximumFractionalValue", 255)) / 2
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for groups, plane in zip(dataset.PerFrameFunctionalGroupsSequence, planes, strict=True):
        at = _place_of(groups, shared, place)
        if at is None:
            continue
        _check_position(groups, plan.cycles[at[0]].frames[at[1]])
        labels = drawn.setdefault(at, np.zeros((rows, cols), dtype=np.uint8))
        if is_map:
            labels[:] = map_labels(plane, convention)
            continue
        segment = groups.get("SegmentIdentificationSequence") or shared.get(
            "SegmentIdentificationSequence"
        )
        number = int(segment[0].ReferencedSegmentNumber)
        inside = plane >= threshold
        if inside.any():
            labels[inside] = map_labels(np.array([number]), convention)[0]


def _by_phase(drawn: Drawn, plan: StackPlan) -> Labelled:
    """Gather planes into phases, and pick ED and ES among them."""
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


def _place_of(
    groups: Dataset, shared: Dataset, place: Mapping[tuple[str, int], tuple[int, int]]
) -> tuple[int, int] | None:
    for source in (groups, shared):
        for derivation in source.get("DerivationImageSequence") or []:
            for image in derivation.get("SourceImageSequence") or []:
                number = image.get("ReferencedFrameNumber")
                index = int(number) - 1 if number is not None else 0
                found = place.get((str(image.ReferencedSOPInstanceUID), index))
                if found is not None:
                    return found
    return None


def _check_position(groups: Dataset, frame: Frame) -> None:
    position = groups.get("PlanePositionSequence")
    if not position:
        return
    stated = np.array([float(x) for x in position[0].ImagePositionPatient])
    if float(np.linalg.norm(stated - np.array(frame.position_mm))) > POSITION_TOLERANCE_MM:
        raise DataError("mask on another grid than its images")
