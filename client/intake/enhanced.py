"""Enhanced MR: one file, many frames, geometry and timing in functional groups (PS3.3 C.7.6.16)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset

from client.intake.frame import Frame

__all__ = ["ENHANCED_MR", "enhanced_frames"]

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


class _Groups:
    """A frame's functional groups: its own where it has them, else the shared ones."""

    def __init__(self, own: Dataset, shared: Dataset) -> None:
        self.own, self.shared = own, shared

    def value(self, group: str, keyword: str, default: Any) -> Any:
        for source in (self.own, self.shared):
            items = source.get(group)
            if items:
                value = items[0].get(keyword)
                if value is not None:
                    return value
        return default

    def numbers(self, group: str, keyword: str) -> tuple[float, ...]:
        value = self.value(group, keyword, ())
        return tuple(float(number) for number in value)

    def number(self, group: str, keyword: str, default: float) -> float:
        value = self.value(group, keyword, default)
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = value[0] if value else default
        return float(value)


def enhanced_frames(dataset: Dataset, template: Frame, num_frames: int) -> tuple[Frame, ...] | str:
    """Return one `Frame` per frame of an enhanced file, or why the file cannot be used.

    Parameters
    ----------
    dataset : Dataset
        The header, with both functional group sequences.
    template : Frame
        What the file states once.
    num_frames : int
        NumberOfFrames as stated.
    """
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if len(per_frame) != num_frames:
        return "enhanced image whose frames are not all described"
    shared_items = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    contrast = str(dataset.get("AcquisitionContrast") or "").lower()
    return tuple(
        _frame(_Groups(own, shared_items[0]), template, index, contrast)
        for index, own in enumerate(per_frame)
    )


def _frame(groups: _Groups, template: Frame, index: int, contrast: str) -> Frame:
    frame_type = groups.value("MRImageFrameTypeSequence", "FrameType", template.image_type)
    complex_part = str(
        groups.value("MRImageFrameTypeSequence", "ComplexImageComponent", "MAGNITUDE")
    )
    inversion_ms = groups.number("MRModifierSequence", "InversionTimes", template.inversion_ms)
    recovery = str(groups.value("MRModifierSequence", "InversionRecovery", "NO"))
    image_type = tuple(str(word).upper() for word in frame_type)
    timing = "MRTimingAndRelatedParametersSequence"
    tags = replace(
        template.tags,
        repetition_ms=groups.number(timing, "RepetitionTime", template.tags.repetition_ms),
        flip_deg=groups.number(timing, "FlipAngle", template.tags.flip_deg),
        echo_ms=groups.number("MREchoSequence", "EffectiveEchoTime", template.tags.echo_ms),
        rr_ms=groups.number(
            "CardiacSynchronizationSequence", "RRIntervalTimeNominal", template.tags.rr_ms
        ),
    )
    if complex_part == "PHASE":
        image_type += ("P",)
    return replace(
        template,
        frame_index=index,
        image_type=image_type,
        text=f"{template.text} | {contrast}",
        inversion_recovery=template.inversion_recovery or recovery == "YES",
        inversion_ms=inversion_ms,
        position_mm=groups.numbers("PlanePositionSequence", "ImagePositionPatient"),
        orientation=groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient"),
        pixel_spacing_mm=groups.numbers("PixelMeasuresSequence", "PixelSpacing"),
        thickness_mm=groups.number("PixelMeasuresSequence", "SliceThickness", math.nan),
        trigger_ms=groups.number(
            "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", math.nan
        ),
        rr_ms=groups.number(
            "CardiacSynchronizationSequence", "RRIntervalTimeNominal", template.rr_ms
        ),
        temporal_index=groups.number("FrameContentSequence", "TemporalPositionIndex", math.nan),
        slope=groups.number("PixelValueTransformationSequence", "RescaleSlope", 1.0),
        intercept=groups.number("PixelValueTransformationSequence", "RescaleIntercept", 0.0),
        tags=tags,
    )
