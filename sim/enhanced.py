"""Enhanced multi-frame MR: a whole stack in one object (PS3.3 A.36.2, groups C.7.6.16)."""

import numpy as np

from sim.dicom import (
    Identity,
    Instance,
    decimal,
    decimals,
    encode_file,
    make_uid,
    series_values,
    study_values,
)
from sim.elements import Elements, Value, elements, sequence
from sim.examination import Examination
from sim.series import Series
from sim.vendors import VENDORS

__all__ = ["enhanced_series", "frame_number"]

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
STACK_ID, IN_STACK_POSITION, TEMPORAL_INDEX = 0x00209056, 0x00209057, 0x00209128
FRAME_CONTENT = 0x00209111


def frame_number(series: Series, frame: int, z: int) -> int:
    """Return the number, from 1, of a (frame, slice) in the enhanced object: slice by slice."""
    return z * len(series.trigger_ms) + frame + 1


def _group(keyword: str, values: dict[str, Value]) -> tuple[int, bytes]:
    return sequence(keyword, [elements(values)])


def _shared_groups(exam: Examination, series: Series) -> Elements:
    profile, stack = VENDORS[exam.vendor], series.stack
    late = series.kind == "lge"
    modifier: dict[str, Value] = {"InversionRecovery": "YES" if late else "NO"}
    if late:
        modifier["InversionTimes"] = float(series.inversion_ms)
    measures: dict[str, Value] = {
        "PixelSpacing": decimals([stack.spacing_mm] * 2),
        "SliceThickness": decimal(stack.thickness_mm),
        "SpacingBetweenSlices": decimal(stack.step_mm),
    }
    kind: dict[str, Value] = {
        "FrameType": ["ORIGINAL", "PRIMARY", "CARDIAC", "NONE"],
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "ComplexImageComponent": "MAGNITUDE",
        "AcquisitionContrast": "T1" if late else "UNKNOWN",
    }
    timing: dict[str, Value] = {
        "RepetitionTime": decimal(2 * exam.rr_ms if late else profile.tr_ms),
        "FlipAngle": "20" if late else decimal(profile.flip_deg),
        "EchoTrainLength": 1,
    }
    scaling: dict[str, Value] = {
        "RescaleIntercept": "0",
        "RescaleSlope": decimal(exam.slope),
        "RescaleType": "US",
    }
    orientation = decimals([*stack.columns, *stack.rows])
    return [
        _group("PixelMeasuresSequence", measures),
        _group("PlaneOrientationSequence", {"ImageOrientationPatient": orientation}),
        _group("MRImageFrameTypeSequence", kind),
        _group("MRTimingAndRelatedParametersSequence", timing),
        _group("MRModifierSequence", modifier),
        _group("PixelValueTransformationSequence", scaling),
    ]


def _frame_groups(exam: Examination, series: Series, frame: int, z: int) -> Elements:
    # Canon numbers every frame as the first temporal position; only the trigger delay tells.
    index = 1 if exam.vendor == "canon" else frame + 1
    content: dict[str, Value] = {
        "StackID": "1",
        "InStackPositionNumber": z + 1,
        "TemporalPositionIndex": index,
        "DimensionIndexValues": [1, z + 1, index],
    }
    timing: dict[str, Value] = {
        "NominalCardiacTriggerDelayTime": float(series.trigger_ms[frame]),
        "RRIntervalTimeNominal": float(exam.rr_ms),
    }
    position = decimals(series.stack.origin_mm[z])
    return [
        _group("FrameContentSequence", content),
        _group("PlanePositionSequence", {"ImagePositionPatient": position}),
        _group("CardiacSynchronizationSequence", timing),
    ]


def _dimensions(root: str) -> Elements:
    uid = make_uid(root, "dimensions")
    indices: list[Elements] = [
        elements(
            {
                "DimensionOrganizationUID": uid,
                "DimensionIndexPointer": pointer,
                "FunctionalGroupPointer": FRAME_CONTENT,
            }
        )
        for pointer in (STACK_ID, IN_STACK_POSITION, TEMPORAL_INDEX)
    ]
    return [
        _group("DimensionOrganizationSequence", {"DimensionOrganizationUID": uid}),
        sequence("DimensionIndexSequence", indices),
    ]


def _module_values(
    identity: Identity, exam: Examination, series: Series, number: int
) -> dict[str, Value]:
    num_frames, num_slices = series.stored.shape[:2]
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "CARDIAC", "NONE"],
        "SeriesInstanceUID": make_uid(identity.uid_root, "series", number),
        "SeriesNumber": number,
        "InstanceNumber": 1,
        "NumberOfFrames": num_frames * num_slices,
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "ComplexImageComponent": "MAGNITUDE",
        "AcquisitionContrast": "T1" if series.kind == "lge" else "UNKNOWN",
        "AcquisitionNumber": number,
        "AcquisitionDateTime": identity.date + identity.time,
        "AcquisitionDuration": 12.0 * num_slices,
        "ContentQualification": "RESEARCH",
        "ResonantNucleus": "1H",
        "PulseSequenceName": VENDORS[exam.vendor].sequence_name or "BALANCED",
        "CardiacSynchronizationTechnique": "RETROSPECTIVE",
        "CardiacSignalSource": "ECG",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "IDENTITY",
        "BurnedInAnnotation": "NO",
    }


def enhanced_series(
    identity: Identity, exam: Examination, series: Series, number: int
) -> list[list[Instance]]:
    """Encode a series as one enhanced MR image; frames run slice by slice, then by time."""
    num_frames, num_slices = series.stored.shape[:2]
    values = study_values(identity, exam) | series_values(exam, series)
    body = [
        *elements(values | _module_values(identity, exam, series, number)),
        *_dimensions(f"{identity.uid_root}/{number}"),
        sequence("SharedFunctionalGroupsSequence", [_shared_groups(exam, series)]),
        sequence(
            "PerFrameFunctionalGroupsSequence",
            [
                _frame_groups(exam, series, frame, z)
                for z in range(num_slices)
                for frame in range(num_frames)
            ],
        ),
    ]
    uid = make_uid(identity.uid_root, "image", number)
    content = encode_file(ENHANCED_MR, uid, body, np.swapaxes(series.stored, 0, 1))
    return [[Instance(uid, content, None)]]
