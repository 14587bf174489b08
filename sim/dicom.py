"""Classic DICOM MR images as scanners write them, one file an image."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from sim.elements import Elements, Value, elements, raw_element, to_bytes
from sim.examination import Examination
from sim.phantom.planes import PlaneStack
from sim.series import Series
from sim.vendors import VENDORS, Packaging

__all__ = [
    "Identity",
    "Instance",
    "classic_series",
    "decimal",
    "decimals",
    "encode_file",
    "make_uid",
    "series_values",
    "study_values",
]

CLASSIC_MR = "1.2.840.10008.5.1.4.1.1.4"
IMPLEMENTATION = "2.25.178305427930172655018423120843"
PIXEL_DATA = 0x7FE00010
GYROMAGNETIC_MHZ_PER_T = 42.577

Values = dict[str, Value]


@dataclass(frozen=True)
class Identity:
    """Who and when; all invented.

    Attributes
    ----------
    uid_root : str
        Anything unique to the study; UIDs are hashes of it.
    date, time : str
        DA and TM of the study.
    """

    patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    weight_kg: float
    height_m: float
    institution: str
    uid_root: str
    date: str
    time: str


@dataclass(frozen=True)
class Instance:
    """An encoded file: its SOP instance UID, and which (frame, slice) it shows (None: several)."""

    uid: str
    content: bytes
    place: tuple[int, int] | None


def make_uid(*parts: object) -> str:
    """Return a UUID-derived UID (2.25) that depends on ``parts`` only."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def decimal(value: float) -> str:
    """Return a DS of at most 16 characters."""
    return f"{value:.5f}".rstrip("0").rstrip(".") or "0"


def decimals(values: Iterable[float]) -> list[str]:
    """Return a multi-valued DS."""
    return [decimal(value) for value in values]


def encode_file(sop_class: str, uid: str, body: Elements, pixels: NDArray[np.uint16]) -> bytes:
    """Return a whole DICOM file; ``body`` lacks only SOP class, SOP instance and pixels."""
    meta: Values = {
        "FileMetaInformationVersion": b"\x00\x01",
        "MediaStorageSOPClassUID": sop_class,
        "MediaStorageSOPInstanceUID": uid,
        "TransferSyntaxUID": ExplicitVRLittleEndian,
        "ImplementationClassUID": IMPLEMENTATION,
        "ImplementationVersionName": "CONCORS_PHANTOM",
    }
    head = to_bytes(elements(meta))
    length = to_bytes(elements({"FileMetaInformationGroupLength": len(head)}))
    own = elements({"SOPClassUID": sop_class, "SOPInstanceUID": uid})
    stored = np.ascontiguousarray(pixels, "<u2").tobytes()
    data = to_bytes([*body, *own, raw_element(PIXEL_DATA, "OW", stored)])
    return b"\x00" * 128 + b"DICM" + length + head + data


def study_values(identity: Identity, exam: Examination) -> Values:
    """Return what every object of a study has in common: patient, study, equipment."""
    profile = VENDORS[exam.vendor]
    values: Values = {"SpecificCharacterSet": "ISO_IR 100", "AccessionNumber": ""}
    for what in ("Study", "Series", "Acquisition", "Content"):
        values[f"{what}Date"] = identity.date
        values[f"{what}Time"] = identity.time
    return values | {
        "Modality": "MR",
        "Manufacturer": profile.manufacturer,
        "InstitutionName": identity.institution,
        "ReferringPhysicianName": "",
        "StudyDescription": "CARDIAC MR",
        "ManufacturerModelName": profile.model[exam.field_t],
        "PatientName": identity.patient_name,
        "PatientID": identity.patient_id,
        "PatientBirthDate": identity.birth_date,
        "PatientSex": identity.sex,
        "PatientSize": decimal(identity.height_m),
        "PatientWeight": decimal(identity.weight_kg),
        "BodyPartExamined": "HEART",
        "MagneticFieldStrength": decimal(exam.field_t),
        "DeviceSerialNumber": "000000",
        "SoftwareVersions": profile.software,
        "PatientPosition": "HFS",
        "StudyInstanceUID": make_uid(identity.uid_root, "study"),
        "StudyID": "1",
        "FrameOfReferenceUID": make_uid(identity.uid_root, "frame of reference"),
        "PositionReferenceIndicator": "",
    }


def series_values(exam: Examination, series: Series) -> Values:
    """Return what all images of a series share, classic or enhanced, besides UID and number."""
    wide = exam.vendor == "canon" or int(series.stored.max()) > 4095
    values: Values = {
        "SeriesDescription": series.name,
        "ProtocolName": series.name,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": series.stack.size_px,
        "Columns": series.stack.size_px,
        "BitsAllocated": 16,
        "BitsStored": 16 if wide else 12,
        "HighBit": 15 if wide else 11,
        "PixelRepresentation": 0,
    }
    if series.kind == "lge":
        values["ContrastBolusAgent"] = "Gadobutrol"
    return values


def _classic_values(exam: Examination, series: Series) -> Values:
    """Return the classic MR image module as far as a series shares it."""
    profile, stack = VENDORS[exam.vendor], series.stack
    late = series.kind == "lge"
    values: Values = {
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER" if series.kind == "localizer" else "M"],
        "ScanningSequence": ["GR", "IR"] if late else "GR",
        "SequenceVariant": ["SK", "SP", "MP"] if late else ["SK", "SS"],
        "ScanOptions": profile.scan_options,
        "MRAcquisitionType": "2D",
        "SliceThickness": decimal(stack.thickness_mm),
        "RepetitionTime": decimal(2 * exam.rr_ms if late else profile.tr_ms),
        "EchoTime": decimal(profile.te_ms),
        "FlipAngle": "20" if late else decimal(profile.flip_deg),
        "ImagingFrequency": decimal(GYROMAGNETIC_MHZ_PER_T * exam.field_t),
        "ImagedNucleus": "1H",
        "EchoTrainLength": 1,
        "NominalInterval": round(exam.rr_ms),
        "HeartRate": round(60_000 / exam.rr_ms),
        "CardiacNumberOfImages": len(series.trigger_ms),
        "PixelSpacing": decimals([stack.spacing_mm] * 2),
        "ImageOrientationPatient": decimals([*stack.columns, *stack.rows]),
    }
    if profile.sequence_name:
        values["SequenceName"] = profile.late_sequence_name if late else profile.sequence_name
    if late:
        values["InversionTime"] = decimal(series.inversion_ms)
    if profile.writes_slice_spacing and len(stack.origin_mm) > 1:
        values["SpacingBetweenSlices"] = decimal(stack.step_mm)
    values |= dict(series.tags)
    if profile.rescale:
        values["RescaleIntercept"] = "0"
        values["RescaleSlope"] = decimal(exam.slope)
        values["RescaleType"] = "normalized"
    return values


def _private_elements(exam: Examination, series: Series) -> Elements:
    """Return the vendor's own groups, which de-identification may remove without harm."""
    late = series.kind == "lge"
    frames, slices = len(series.trigger_ms), len(series.stack.origin_mm)
    if exam.vendor == "siemens":
        return [
            raw_element(0x00510010, "LO", "SIEMENS MR HEADER"),
            raw_element(0x0051100B, "SH", f"{series.stack.size_px}*{series.stack.size_px}"),
            raw_element(0x0051100F, "LO", "BO1,2;SP1-3"),
        ]
    if exam.vendor == "philips":
        return [
            raw_element(0x20010010, "LO", "Philips Imaging DD 001"),
            raw_element(0x20011010, "CS", "TRIGGERED"),
            raw_element(0x20011017, "SL", frames),
            raw_element(0x20011018, "SL", slices),
            raw_element(0x20011020, "LO", "TFE" if late else "B-TFE"),
            raw_element(0x20050010, "LO", "Philips MR Imaging DD 001"),
            # Floating-point value = displayed value / (RescaleSlope * ScaleSlope).
            raw_element(0x2005100E, "FL", 0.01),
        ]
    if exam.vendor == "ge":
        return [
            raw_element(0x00190010, "LO", "GEMS_ACQU_01"),
            raw_element(0x00191088, "SS", frames),
            raw_element(0x0019109C, "LO", "mde" if late else "fiesta"),
            raw_element(0x00430010, "LO", "GEMS_PARM_01"),
            raw_element(0x0043102F, "SS", 0),
        ]
    return []


def _image_values(
    stack: PlaneStack, place: tuple[int, int], trigger_ms: float, instance_number: int
) -> Values:
    frame, z = place
    origin = stack.origin_mm[z]
    return {
        "TriggerTime": decimal(trigger_ms),
        "ImagePositionPatient": decimals(origin),
        "SliceLocation": decimal(float(origin @ stack.normal)),
        "InstanceNumber": instance_number,
        "TemporalPositionIdentifier": frame + 1,
    }


def classic_series(
    identity: Identity,
    exam: Examination,
    series: Series,
    number: int,
    packaging: Packaging,
    order: Sequence[int] | None = None,
    *,
    private_tags: bool = True,
) -> list[list[Instance]]:
    """Encode a series as single-frame MR images.

    Parameters
    ----------
    number : int
        SeriesNumber of the (first) series.
    packaging : str
        ``series_per_slice`` gives one series a slice of the cine, anything else one series in all.
    order : sequence of int, optional
        InstanceNumber - 1 of the images counted slice by slice; by default their own count.

    Returns
    -------
    list of list of Instance
        One list per DICOM series, in the order of InstanceNumber.
    """
    num_frames, num_slices = series.stored.shape[:2]
    groups = [[(frame, z) for frame in range(num_frames)] for z in range(num_slices)]
    if not (packaging == "series_per_slice" and series.kind == "cine"):
        groups = [[place for group in groups for place in group]]
    shared = elements(
        study_values(identity, exam) | series_values(exam, series) | _classic_values(exam, series)
    )
    if private_tags:
        shared += _private_elements(exam, series)
    encoded = []
    for series_number, group in enumerate(groups, start=number):
        own: Values = {
            "SeriesInstanceUID": make_uid(identity.uid_root, "series", series_number),
            "SeriesNumber": series_number,
        }
        body = [*shared, *elements(own)]
        ranks = order if order is not None and len(order) == len(group) else range(len(group))
        instances: list[tuple[int, Instance]] = []
        for rank, place in zip(ranks, group, strict=True):
            part = (series.part,) if series.part else ()
            uid = make_uid(identity.uid_root, "image", series_number, *place, *part)
            trigger = float(series.trigger_ms[place[0]])
            values = _image_values(series.stack, place, trigger, rank + 1)
            kept = body
            if series.frame_tags:
                values |= dict(series.frame_tags[place[0]])
                own_tags = {tag for tag, _ in elements(values)}
                kept = [element for element in body if element[0] not in own_tags]
            image = elements(values)
            content = encode_file(CLASSIC_MR, uid, [*kept, *image], series.stored[place])
            instances.append((rank, Instance(uid, content, place)))
        encoded.append([instance for _, instance in sorted(instances, key=lambda pair: pair[0])])
    return encoded
