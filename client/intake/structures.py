"""RTSTRUCT: contours in patient millimetres, each on the image it names.

Coordinates: LPS mm in the file, (column, row) pixels here; the centre of the first pixel is (0, 0).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.intake.drawn import Drawn, Place, by_phase, places
from client.intake.headers import UNREADABLE
from client.intake.mask_planes import fill, in_pixels
from client.intake.opening import open_dicom
from client.intake.quiet import quietly
from client.intake.stacks import StackPlan
from client.masks import Labelled
from protocol.errors import DataError
from shared_models.labels import LV, MYO, RV

__all__ = ["RTSTRUCT", "read_structures"]

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
MAX_FILE_BYTES = 64 << 20
MAX_CONTOURS, MAX_POINTS = 20_000, 20_000


def read_structures(paths: Sequence[Path], plan: StackPlan, rois: Mapping[str, str]) -> Labelled:
    """Read a patient's structure sets onto the frames of the short-axis cine.

    A pixel belongs to a region if its centre lies inside an odd number of the region's contours on
    that image, so that a contour within another is a hole. LV wins over the myocardium, whether
    that is drawn itself or is what EPI leaves around LV.

    Parameters
    ----------
    rois : mapping of str to str
        Name of a region to LV, MYO, RV or EPI; the case of letters does not count. Others are left.

    Raises
    ------
    DataError
        If a file is damaged or too large, contours name no image of the cine, do not lie on it or
        reach beyond it, or fewer than two phases are drawn.
    """
    place = places(plan)
    meant = {name.strip().lower(): label for name, label in rois.items()}
    regions: dict[Place, dict[str, np.ndarray]] = {}
    for path in paths:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise DataError("structure set larger than 64 MiB")
            with open_dicom(path, bare=True) as (stream, is_bare, _), quietly():
                _add(dcmread(stream, force=is_bare), plan, place, meant, regions)
        except UNREADABLE as error:
            raise DataError("mask file is damaged") from error
    if not regions:
        raise DataError("mask refers to no image of the short-axis cine")
    drawn: Drawn = {}
    for at, inside in sorted(regions.items()):
        labels = drawn.setdefault(at, np.zeros(plan.shape[2:], np.uint8))
        for name, label in (("RV", RV), ("EPI", MYO), ("MYO", MYO), ("LV", LV)):
            if name in inside:
                labels[inside[name]] = label
    return replace(by_phase(drawn, plan), partial="RV" not in rois.values())


def _add(
    dataset: Dataset,
    plan: StackPlan,
    place: Mapping[tuple[str, int], Place],
    meant: Mapping[str, str],
    regions: dict[Place, dict[str, np.ndarray]],
) -> None:
    numbers = {
        int(roi.ROINumber): meant[name]
        for roi in dataset.StructureSetROISequence
        if (name := str(roi.get("ROIName") or "").strip().lower()) in meant
    }
    for roi in dataset.ROIContourSequence:
        label = numbers.get(int(roi.ReferencedROINumber))
        if label is None:
            continue
        for at, points in _contours(roi, place):
            frame = plan.cycles[at[0]].frames[at[1]]
            shape = (frame.rows, frame.cols)
            drawn = regions.setdefault(at, {})
            inside = fill(in_pixels(points, frame), shape)
            drawn[label] = drawn.get(label, np.zeros(shape, bool)) ^ inside


def _contours(
    roi: Dataset, place: Mapping[tuple[str, int], Place]
) -> Iterator[tuple[Place, np.ndarray]]:
    contours = roi.get("ContourSequence") or []
    if len(contours) > MAX_CONTOURS:
        raise DataError(f"structure set with more than {MAX_CONTOURS} contours in a region")
    for contour in contours:
        if contour.get("ContourGeometricType") != "CLOSED_PLANAR":
            continue
        images = contour.get("ContourImageSequence") or []
        places = (
            place.get((str(i.ReferencedSOPInstanceUID), int(i.get("ReferencedFrameNumber", 1)) - 1))
            for i in images
        )
        at = next((found for found in places if found is not None), None)
        # Without its image the phase of a contour is unknown: all phases lie in one place.
        if at is None:
            continue
        points = np.array([float(x) for x in contour.ContourData]).reshape(-1, 3)
        if not 3 <= len(points) <= MAX_POINTS:
            raise DataError("mask with a contour of fewer than 3 points or too many")
        yield at, points
