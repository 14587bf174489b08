"""Enhanced multi-frame MR: a whole stack in one object (PS3.3 A.36.2, functional groups C.7.6.16)."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from sim.dicom import (
    ENHANCED_MR,
    Identity,
    Instance,
    SeriesEncoder,
    decimal,
    decimals,
    make_uid,
    study_dataset,
)
from sim.examination import Examination, Series
from sim.vendors import VENDORS

__all__ = ["enhanced_series", "frame_number"]

STACK_ID, IN_STACK_POSITION, TEMPORAL_INDEX = 0x00209056, 0x00209057, 0x00209128
FRAME_CONTENT = 0x00209111


def frame_number(series: Series, frame: int, z: int) -> int:
    """Return the number, from 1, of a (frame, slice) in the enhanced object: slice by slice."""
    return z * len(series.trigger_ms) + frame + 1


def _item(**values: object) -> Sequence:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return Sequence([item])


def _shared_groups(exam: Examination, series: Series) -> Dataset:
    profile = VENDORS[exam.vendor]
    stack = series.stack
    late = series.kind == "lge"
    groups = Dataset()
    measures = {
        "PixelSpacing": decimals([stack.spacing_mm] * 2),
        "SliceThickness": decimal(stack.thickness_mm),
        "SpacingBetweenSlices": decimal(stack.step_mm),
    }
    groups.PixelMeasuresSequence = _item(**measures)
    groups.PlaneOrientationSequence = _item(
        ImageOrientationPatient=decimals([*stack.columns, *stack.rows])
    )
    groups.MRImageFrameTypeSequence = _item(
        FrameType=["ORIGINAL", "PRIMARY", "CARDIAC", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        ComplexImageComponent="MAGNITUDE",
        AcquisitionContrast="T1" if late else "UNKNOWN",
    )
    groups.MRTimingAndRelatedParametersSequence = _item(
        RepetitionTime=decimal(2 * exam.rr_ms if late else profile.tr_ms),
        FlipAngle="20" if late else decimal(profile.flip_deg),
        EchoTrainLength=1,
    )
    modifier = Dataset()
    modifier.InversionRecovery = "YES" if late else "NO"
    if late:
        modifier.InversionTimes = [float(series.inversion_ms)]
    groups.MRModifierSequence = Sequence([modifier])
    groups.PixelValueTransformationSequence = _item(
        RescaleIntercept="0", RescaleSlope=decimal(exam.slope), RescaleType="US"
    )
    return groups


def _frame_groups(exam: Examination, series: Series, frame: int, z: int) -> Dataset:
    # Canon numbers every frame as the first temporal position; only the trigger delay tells.
    index = 1 if exam.vendor == "canon" else frame + 1
    groups = Dataset()
    groups.FrameContentSequence = _item(
        StackID="1",
        InStackPositionNumber=z + 1,
        TemporalPositionIndex=index,
        DimensionIndexValues=[1, z + 1, index],
    )
    groups.PlanePositionSequence = _item(ImagePositionPatient=decimals(series.stack.origin_mm[z]))
    groups.CardiacSynchronizationSequence = _item(
        NominalCardiacTriggerDelayTime=float(series.trigger_ms[frame]),
        RRIntervalTimeNominal=float(exam.rr_ms),
    )
    return groups


def _dimensions(root: str) -> tuple[Sequence, Sequence]:
    uid = make_uid(root, "dimensions")
    indices = []
    for pointer in (STACK_ID, IN_STACK_POSITION, TEMPORAL_INDEX):
        item = Dataset()
        item.DimensionOrganizationUID = uid
        item.DimensionIndexPointer = pointer
        item.FunctionalGroupPointer = FRAME_CONTENT
        indices.append(item)
    return _item(DimensionOrganizationUID=uid), Sequence(indices)


def enhanced_series(
    identity: Identity, exam: Examination, series: Series, number: int
) -> list[list[Instance]]:
    """Encode a series as one enhanced MR image; frames run slice by slice, then by time."""
    num_frames, num_slices = series.stored.shape[:2]
    dataset = study_dataset(identity, exam, series, number)
    dataset.SOPClassUID = ENHANCED_MR
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "CARDIAC", "NONE"]
    dataset.SeriesInstanceUID = make_uid(identity.uid_root, "series", number)
    dataset.InstanceNumber = 1
    dataset.NumberOfFrames = num_frames * num_slices
    dataset.PixelPresentation = "MONOCHROME"
    dataset.VolumetricProperties = "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.ComplexImageComponent = "MAGNITUDE"
    dataset.AcquisitionContrast = "T1" if series.kind == "lge" else "UNKNOWN"
    dataset.AcquisitionNumber = number
    dataset.AcquisitionDateTime = identity.date + identity.time
    dataset.AcquisitionDuration = 12.0 * num_slices
    dataset.ContentQualification = "RESEARCH"
    dataset.ResonantNucleus = "1H"
    dataset.PulseSequenceName = VENDORS[exam.vendor].sequence_name or "cine"
    dataset.CardiacSynchronizationTechnique = "RETROSPECTIVE"
    dataset.CardiacSignalSource = "ECG"
    dataset.LossyImageCompression = "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.BurnedInAnnotation = "NO"
    organization, index = _dimensions(f"{identity.uid_root}/{number}")
    dataset.DimensionOrganizationSequence = organization
    dataset.DimensionIndexSequence = index
    dataset.SharedFunctionalGroupsSequence = Sequence([_shared_groups(exam, series)])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [
            _frame_groups(exam, series, frame, z)
            for z in range(num_slices)
            for frame in range(num_frames)
        ]
    )
    own = Dataset()
    own.SOPInstanceUID = make_uid(identity.uid_root, "image", number)
    pixels = np.swapaxes(series.stored, 0, 1)
    return [[Instance(own.SOPInstanceUID, SeriesEncoder(dataset).encode(own, pixels), None)]]
