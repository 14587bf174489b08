"""Expert masks as DICOM SEG: one object a labelled phase, naming the cine images it lies on."""

import io
from collections.abc import Mapping

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from shared_models.labels import CLASS_NAMES, LV, MYO, RV
from sim.dicom import Identity, Instance, make_uid
from sim.enhanced import frame_number
from sim.series import Series

__all__ = ["SEGMENT_ORDERS", "encode_masks"]

#: Segment numbers from 1: which class is drawn first is a habit of the hospital.
SEGMENT_ORDERS: Mapping[str, tuple[int, int, int]] = {
    "rv_first": (RV, MYO, LV),
    "lv_first": (LV, MYO, RV),
}
STRUCTURES = {LV: ("87878005", "Left ventricle"), MYO: ("74281007", "Myocardium"),
              RV: ("53085002", "Right ventricle")}  # fmt: skip
NAMES = {LV: "LV cavity", MYO: "LV myocardium", RV: "RV cavity"}


def _descriptions(order: tuple[int, int, int]) -> list[hd.seg.SegmentDescription]:
    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"{CLASS_NAMES[label]} ({NAMES[label]})",
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=hd.sr.CodedConcept(
                STRUCTURES[label][0], "SCT", STRUCTURES[label][1]
            ),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(order, start=1)
    ]


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
    # highdicom pairs masks with all frames of a multi-frame image; show it those of this phase.
    image = _header(instances[0])
    numbers = [frame_number(series, frame, z) for z in range(num_slices)]
    groups = image.PerFrameFunctionalGroupsSequence
    image.PerFrameFunctionalGroupsSequence = Sequence([groups[number - 1] for number in numbers])
    image.NumberOfFrames = num_slices
    return [image], numbers


def _restore_frame_numbers(segmentation: Dataset, numbers: list[int]) -> None:
    # The segments of one slice share their source items: mend each item once.
    sources = {
        id(source): source
        for groups in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in groups.get("DerivationImageSequence", ())
        for source in derivation.SourceImageSequence
    }
    for source in sources.values():
        source.ReferencedFrameNumber = numbers[int(source.ReferencedFrameNumber) - 1]


def _one_series(images: list[Dataset]) -> dict[str, str]:
    """Give all images the first one's series, and return each one's own by SOP instance.

    highdicom wants its sources from one series; some scanners write one series a slice.
    """
    own = {image.SOPInstanceUID: image.SeriesInstanceUID for image in images}
    for image in images:
        image.SeriesInstanceUID = images[0].SeriesInstanceUID
    return own


def _restore_series(segmentation: Dataset, own: dict[str, str]) -> None:
    by_series: dict[str, list[Dataset]] = {}
    for item in segmentation.ReferencedSeriesSequence:
        for instance in item.ReferencedInstanceSequence:
            uid = own[instance.ReferencedSOPInstanceUID]
            by_series.setdefault(uid, []).append(instance)
    items = []
    for uid, instances in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = Sequence(instances)
        items.append(item)
    segmentation.ReferencedSeriesSequence = Sequence(items)


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
    number_of = np.zeros(max(order) + 1, np.uint8)
    number_of[list(order)] = (1, 2, 3)
    files = []
    for phase, frame in enumerate(frames):
        sources, numbers = _sources(series, instances, frame)
        own_series = _one_series(sources)
        uid = make_uid(identity.uid_root, "mask", phase)
        segmentation = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=number_of[labels[phase]],
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(order),
            series_instance_uid=make_uid(identity.uid_root, "mask series"),
            series_number=900,
            sop_instance_uid=uid,
            instance_number=phase + 1,
            manufacturer="Reading room",
            manufacturer_model_name="Contours",
            software_versions="1",
            device_serial_number="000000",
            content_label="CARDIAC",
            omit_empty_frames=True,
        )
        if numbers is not None:
            _restore_frame_numbers(segmentation, numbers)
        _restore_series(segmentation, own_series)
        _fix_identity(segmentation, identity, uid)
        buffer = io.BytesIO()
        dcmwrite(buffer, segmentation, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files
