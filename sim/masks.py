"""Expert masks as DICOM SEG: one object a labelled phase, naming the cine images it lies on."""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from client.segmentation_files import encode_segmentation
from shared_models.labels import LV, MYO, RV
from sim.dicom import Identity, Instance, make_uid
from sim.enhanced import frame_number
from sim.series import Series

__all__ = ["SEGMENT_ORDERS", "encode_masks"]

#: Segment numbers from 1: which class is drawn first is a habit of the hospital.
SEGMENT_ORDERS: Mapping[str, tuple[int, int, int]] = {
    "rv_first": (RV, MYO, LV),
    "lv_first": (LV, MYO, RV),
}


def _header(instance: Instance) -> Dataset:
    return dcmread(io.BytesIO(instance.content), stop_before_pixels=True)


def _sources(
    series: Series, instances: list[Instance], frame: int
) -> tuple[list[Dataset], list[int] | None]:
    """Return the images a mask lies on, one a slice, and their frame numbers if multi-frame."""
    num_slices = len(series.stack.origin_mm)
    if instances[0].place is not None:
        by_place = {instance.place: instance for instance in instances}
        return [_header(by_place[frame, z]) for z in range(num_slices)], None
    numbers = [frame_number(series, frame, z) for z in range(num_slices)]
    return [_header(instances[0])], numbers


def _fix_identity(dataset: Dataset, identity: Identity, uid: str) -> None:
    """Replace what highdicom takes from the clock or from chance."""
    for element in dataset.iterall():
        if element.keyword in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
            element.value = identity.date
        elif element.keyword in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
            element.value = identity.time
        elif element.keyword == "ContributionDateTime":
            element.value = identity.date + identity.time
        elif element.keyword == "DimensionOrganizationUID":
            element.value = make_uid(uid, "dimensions")


def encode_masks(
    identity: Identity,
    series: Series,
    instances: list[Instance],
    labels: NDArray[np.uint8],
    frames: tuple[int, int],
    order: tuple[int, int, int],
) -> list[bytes]:
    """Return the DICOM SEG files of the two labelled phases.

    Parameters
    ----------
    series : Series
        The short-axis cine.
    instances : list of Instance
        All its files.
    labels : ndarray
        (2, Z, Y, X) in the project's convention, end-diastole first.
    frames : tuple of int
        Cine frames of the two phases.
    order : tuple of int
        Class of segments 1, 2, 3.
    """
    files = []
    for phase, frame in enumerate(frames):
        sources, numbers = _sources(series, instances, frame)
        uid = make_uid(identity.uid_root, "mask", phase)
        segmentation = encode_segmentation(
            sources,
            numbers,
            labels[phase],
            order,
            series_instance_uid=make_uid(identity.uid_root, "mask series"),
            series_number=900,
            sop_instance_uid=uid,
            instance_number=phase + 1,
            manufacturer="Reading room",
            manufacturer_model_name="Contours",
            software_versions="1",
            device_serial_number="000000",
            content_label="CARDIAC",
        )
        _fix_identity(segmentation, identity, uid)
        buffer = io.BytesIO()
        dcmwrite(buffer, segmentation, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files
