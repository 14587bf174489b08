"""DICOM SEG: whose mask, of which image, in which segment; read once, mapped by referenced image.

A mask is never placed by slice order or file name: each of its planes names the image it was drawn
on, and must lie in that image's plane. Where its grid is another (a finer one, or a part of the
image), it is brought onto the image's by the rule of `client.intake.mask_planes`.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.intake.drawn import Drawn, by_phase, places
from client.intake.frame import Frame
from client.intake.headers import UNREADABLE
from client.intake.mask_planes import PlaneGrid, sample_onto
from client.intake.opening import open_dicom
from client.intake.quiet import quietly
from client.intake.stacks import StackPlan
from client.intake.walking import files_below
from client.masks import Labelled, map_labels
from protocol.errors import DataError

__all__ = ["index_segmentations", "read_segmentations"]

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
POSITION_TOLERANCE_MM = 1.0
MAX_VOXELS, ALWAYS_VOXELS, MAX_UNFOLDING = 1 << 30, 1 << 26, 1600


def index_segmentations(
    folder: Path, classes: Collection[str] = (SEGMENTATION, LABEL_MAP)
) -> tuple[dict[str, list[Path]], int]:
    """Return the SEG files (or those of other classes) below a folder by patient number.

    Also returns how many files are none.
    """
    by_patient: dict[str, list[Path]] = {}
    others = 0
    for path in map(Path, files_below(folder)):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            with open_dicom(path, bare=True) as (stream, is_bare, _), quietly():
                dataset = dcmread(
                    stream,
                    stop_before_pixels=True,
                    specific_tags=["SOPClassUID", "PatientID"],
                    force=is_bare,
                )
            is_segmentation = dataset.get("SOPClassUID") in classes
            patient = str(dataset.get("PatientID") or "").strip()
        except (DataError, *UNREADABLE):
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
    place = places(plan)
    drawn: Drawn = {}
    for path in paths:
        try:
            # Opened with bounds: a deflated file of a megabyte can hold a gigabyte.
            with open_dicom(path, bare=True) as (stream, is_bare, _), quietly():
                _add(dcmread(stream, force=is_bare), plan, place, convention, drawn)
        except UNREADABLE as error:
            raise DataError("mask file is damaged") from error
    if not drawn:
        raise DataError("mask refers to no image of the short-axis cine")
    return by_phase(drawn, plan)


def _add(
    dataset: Dataset,
    plan: StackPlan,
    place: Mapping[tuple[str, int], tuple[int, int]],
    convention: Mapping[int, str],
    drawn: Drawn,
) -> None:
    """Add one SEG file's planes to ``drawn``."""
    _check_size(dataset)
    pixels = dataset.pixel_array
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    is_map = dataset.SOPClassUID == LABEL_MAP
    threshold = 1.0
    if str(dataset.get("SegmentationType", "")) == "FRACTIONAL":
        threshold = float(dataset.get("MaximumFractionalValue", 255)) / 2
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for groups, plane in zip(dataset.PerFrameFunctionalGroupsSequence, planes, strict=True):
        at = _place_of(groups, shared, place)
        if at is None:
            continue
        frame = plan.cycles[at[0]].frames[at[1]]
        grid = _grid(groups, shared, frame, plane.shape)
        labels = drawn.setdefault(at, np.zeros(plan.shape[2:], dtype=np.uint8))
        if is_map:
            for value in np.unique(plane[plane > 0]):
                label = map_labels(np.array([value]), convention)[0]
                labels[_onto(plane == value, grid, frame)] = label
            continue
        segment = groups.get("SegmentIdentificationSequence") or shared.get(
            "SegmentIdentificationSequence"
        )
        number = int(segment[0].ReferencedSegmentNumber)
        inside = plane >= threshold
        if inside.any():
            label = map_labels(np.array([number]), convention)[0]
            labels[_onto(inside, grid, frame)] = label


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


def _check_size(dataset: Dataset) -> None:
    voxels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
    stored = len(dataset.PixelData)
    if voxels > MAX_VOXELS or voxels > max(ALWAYS_VOXELS, MAX_UNFOLDING * stored):
        raise DataError("mask states an implausible size")


def _onto(drawn: np.ndarray, grid: PlaneGrid | None, frame: Frame) -> np.ndarray:
    return drawn if grid is None else sample_onto(drawn, grid, frame)


def _grid(
    groups: Dataset, shared: Dataset, frame: Frame, shape: tuple[int, ...]
) -> PlaneGrid | None:
    """Return where a plane lies; None where its pixels are the image's own."""

    def stated(sequence: str, keyword: str) -> np.ndarray | None:
        for source in (groups, shared):
            items = source.get(sequence)
            if items and items[0].get(keyword) is not None:
                return np.array([float(x) for x in items[0].get(keyword)])
        return None

    position = stated("PlanePositionSequence", "ImagePositionPatient")
    orientation = stated("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = stated("PixelMeasuresSequence", "PixelSpacing")
    own_shape = shape == (frame.rows, frame.cols)
    silent = orientation is None or spacing is None
    if own_shape and silent and (position is None or _near(position, frame)):
        return None
    if position is None or orientation is None or spacing is None:
        raise DataError("mask on another grid than its images")
    turned = not np.allclose(orientation, frame.orientation, atol=1e-3)
    scaled = not np.allclose(spacing, frame.pixel_spacing_mm, rtol=1e-3)
    if own_shape and not turned and not scaled and _near(position, frame):
        return None
    return PlaneGrid(
        position, orientation[:3], orientation[3:], (float(spacing[0]), float(spacing[1]))
    )


def _near(position: np.ndarray, frame: Frame) -> bool:
    away = float(np.linalg.norm(position - np.array(frame.position_mm)))
    return away <= min(POSITION_TOLERANCE_MM, min(frame.pixel_spacing_mm) / 2)
