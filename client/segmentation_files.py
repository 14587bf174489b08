"""DICOM SEG objects that name, plane by plane, the images they lie on.

highdicom writes them from one series of single-frame images or from one multi-frame image. Scanners
also write one series a slice, and multi-frame images that hold other phases too; both are shown to
highdicom as it wants them and mended afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from shared_models.labels import CLASS_NAMES, LV, MYO, RV

__all__ = ["ALGORITHM", "encode_segmentation"]

STRUCTURES = {
    LV: ("87878005", "Left ventricle", "LV cavity"),
    MYO: ("74281007", "Myocardium", "LV myocardium"),
    RV: ("53085002", "Right ventricle", "RV cavity"),
}
ALGORITHM = hd.AlgorithmIdentificationSequence(
    name="Concors segmentation network",
    family=codes.DCM.ArtificialIntelligence,
    version="1",
)
"""Who drew a mask that no expert drew."""


def encode_segmentation(
    images: Sequence[Dataset],
    frame_numbers: Sequence[int] | None,
    labels: np.ndarray,
    order: Sequence[int],
    *,
    algorithm: hd.AlgorithmIdentificationSequence | None = None,
    **attributes: Any,
) -> Dataset:
    """Return a binary SEG of some slices at one phase.

    Parameters
    ----------
    images : sequence of Dataset
        Headers without pixels: one single-frame image a slice, or one multi-frame image.
    frame_numbers : sequence of int or None
        Of a multi-frame image, the frame of each slice, counted from 1.
    labels : ndarray
        uint8 (Z, Y, X), canonical; at least one voxel is not background.
    order : sequence of int
        Class of segments 1, 2, 3.
    algorithm : AlgorithmIdentificationSequence, optional
        What drew the mask; by default a person did.
    attributes
        Further arguments of `highdicom.seg.Segmentation`.
    """
    number_of = np.zeros(max(order) + 1, np.uint8)
    number_of[list(order)] = np.arange(1, len(order) + 1)
    several = frame_numbers is None
    sources = _one_stack(images) if several else [_of_phase(images[0], frame_numbers or ())]
    own = _one_series(sources)
    try:
        segmentation = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=number_of[labels],
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(order, algorithm),
            omit_empty_frames=True,
            **attributes,
        )
    finally:
        for source in sources:
            source.SeriesInstanceUID = own[source.SOPInstanceUID]
    if frame_numbers is not None:
        _restore_frame_numbers(segmentation, frame_numbers)
    _restore_series(segmentation, own)
    return segmentation


def _descriptions(
    order: Sequence[int], algorithm: hd.AlgorithmIdentificationSequence | None
) -> list[hd.seg.SegmentDescription]:
    kinds = hd.seg.SegmentAlgorithmTypeValues
    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"{CLASS_NAMES[label]} ({STRUCTURES[label][2]})",
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=hd.sr.CodedConcept(
                STRUCTURES[label][0], "SCT", STRUCTURES[label][1]
            ),
            algorithm_type=kinds.MANUAL if algorithm is None else kinds.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, label in enumerate(order, start=1)
    ]


def _of_phase(image: Dataset, numbers: Sequence[int]) -> Dataset:
    """Return the header of a multi-frame image as if it held these frames only.

    highdicom pairs masks with all frames of a multi-frame image.
    """
    shown = Dataset()
    shown.update(image)
    shown.file_meta = image.file_meta
    groups = [image.PerFrameFunctionalGroupsSequence[number - 1] for number in numbers]
    shared = Dataset()
    shared.update(image.SharedFunctionalGroupsSequence[0])
    # Some scanners repeat in every frame what highdicom looks for once.
    for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if keyword not in shared and keyword in groups[0]:
            shared[keyword] = groups[0][keyword]
    shown.SharedFunctionalGroupsSequence = Items([shared])
    shown.PerFrameFunctionalGroupsSequence = Items(groups)
    shown.NumberOfFrames = len(numbers)
    return shown


def _one_stack(images: Sequence[Dataset]) -> list[Dataset]:
    """Give all images the first one's frame of reference and orientation.

    They are one stack; but directions differ in their last digits from breath-hold to breath-hold,
    and there are archives whose anonymiser drew a new frame of reference for every file.
    """
    reference = images[0].get("FrameOfReferenceUID") or generate_uid()
    for image in images:
        image.FrameOfReferenceUID = reference
        image.ImageOrientationPatient = images[0].ImageOrientationPatient
    return list(images)


def _restore_frame_numbers(segmentation: Dataset, numbers: Sequence[int]) -> None:
    # The segments of one slice share their source items: mend each item once.
    sources = {
        id(source): source
        for groups in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in groups.get("DerivationImageSequence", ())
        for source in derivation.SourceImageSequence
    }
    for source in sources.values():
        source.ReferencedFrameNumber = numbers[int(source.ReferencedFrameNumber) - 1]


def _one_series(images: Sequence[Dataset]) -> dict[str, str]:
    """Give all images the first one's series, and return each one's own by SOP instance."""
    own = {image.SOPInstanceUID: image.SeriesInstanceUID for image in images}
    for image in images:
        image.SeriesInstanceUID = images[0].SeriesInstanceUID
    return own


def _restore_series(segmentation: Dataset, own: Mapping[str, str]) -> None:
    by_series: dict[str, list[Dataset]] = {}
    for item in segmentation.ReferencedSeriesSequence:
        for instance in item.ReferencedInstanceSequence:
            uid = own[instance.ReferencedSOPInstanceUID]
            by_series.setdefault(uid, []).append(instance)
    items = []
    for uid, instances in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = Items(instances)
        items.append(item)
    segmentation.ReferencedSeriesSequence = Items(items)
