"""DICOM SEG: whose mask, of which image, in which segment; read once, mapped by referenced image.

A mask is never placed by slice order or file name: each of its planes names the image it was drawn
on, and must lie where that image lies.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.intake.headers import UNREADABLE
from client.intake.quiet import quietly
from client.intake.stacks import StackPlan
from client.intake.walking import files_below
from client.masks import Labelled, map_labels, pick_phases
from protocol.errors import DataError

__all__ = ["index_segmentations", "read_segmentations"]

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
POSITION_TOLERANCE_MM = 1.0


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
    place: dict[tuple[str, int], tuple[int, int]] = {}
    for t, phase in enumerate(plan.frames):
        for z, frame in enumerate(phase):
            place.setdefault((frame.sop_uid, frame.frame_index), (t, z))
    by_phase: dict[int, np.ndarray] = {}
    for path in paths:
        try:
            with quietly():
                dataset = dcmread(path)
                _add(dataset, plan, place, convention, by_phase)
        except UNREADABLE as error:
            raise DataError("mask file is damaged") from error
    if not by_phase:
        raise DataError("mask refers to no image of the short-axis cine")
    return pick_phases(by_phase)


def _add(
    dataset: Dataset,
    plan: StackPlan,
    place: Mapping[tuple[str, int], tuple[int, int]],
    convention: Mapping[int, str],
    by_phase: dict[int, np.ndarray],
) -> None:
    """Add one SEG file's planes to ``by_phase`` (phase to canonical labels (Z, Y, X))."""
    _, num_slices, rows, cols = plan.shape
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
        t, z = at
        _check_position(groups, plan, t, z)
        labels = by_phase.setdefault(t, np.zeros((num_slices, rows, cols), dtype=np.uint8))
        if is_map:
            labels[z] = map_labels(plane, convention)
            continue
        segment = groups.get("SegmentIdentificationSequence") or shared.get(
            "SegmentIdentificationSequence"
        )
        number = int(segment[0].ReferencedSegmentNumber)
        drawn = plane >= threshold
        if drawn.any():
            labels[z][drawn] = map_labels(np.array([number]), convention)[0]


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


def _check_position(groups: Dataset, plan: StackPlan, t: int, z: int) -> None:
    position = groups.get("PlanePositionSequence")
    if not position:
        return
    stated = np.array([float(x) for x in position[0].ImagePositionPatient])
    away = float(np.linalg.norm(stated - np.array(plan.frames[t][z].position_mm)))
    if away > POSITION_TOLERANCE_MM:
        raise DataError("mask on another grid than its images")
