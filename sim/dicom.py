"""DICOM as scanners write it: classic MR images and enhanced multi-frame MR.

A classic series differs from image to image in a handful of elements. So the others are encoded once
a series, and each file is a merge of two lists of encoded elements; pydicom encodes every element,
but one image costs tenths of a millisecond.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import ExplicitVRLittleEndian

from sim.examination import Examination, Series
from sim.phantom.planes import PlaneStack
from sim.vendors import VENDORS, Packaging

__all__ = [
    "CLASSIC_MR",
    "ENHANCED_MR",
    "Identity",
    "Instance",
    "SeriesEncoder",
    "classic_series",
    "make_uid",
    "study_dataset",
]

CLASSIC_MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
IMPLEMENTATION = "2.25.178305427930172655018423120843"
PIXEL_DATA = 0x7FE00010


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


def _encode(element: DataElement) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, ["iso8859"])
    return buffer.getvalue()


def _encode_all(dataset: Dataset) -> list[tuple[int, bytes]]:
    return [(int(element.tag), _encode(element)) for element in dataset]


def _pixel_element(pixels: NDArray[np.uint16]) -> bytes:
    content = np.ascontiguousarray(pixels, "<u2").tobytes()
    return b"\xe0\x7f\x10\x00OW\x00\x00" + len(content).to_bytes(4, "little") + content


class SeriesEncoder:
    """Encodes the files of one series from what they share and what each adds."""

    def __init__(self, shared: Dataset) -> None:
        self._shared = _encode_all(shared)
        meta = Dataset()
        meta.FileMetaInformationVersion = b"\x00\x01"
        meta.MediaStorageSOPClassUID = shared.SOPClassUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = IMPLEMENTATION
        meta.ImplementationVersionName = "CONCORS_PHANTOM"
        self._meta = _encode_all(meta)

    def encode(self, own: Dataset, pixels: NDArray[np.uint16]) -> bytes:
        """Return the whole file; ``own`` holds SOPInstanceUID and must not repeat shared tags."""
        meta = Dataset()
        meta.MediaStorageSOPInstanceUID = own.SOPInstanceUID
        head = b"".join(part for _, part in sorted(self._meta + _encode_all(meta)))
        length = b"\x02\x00\x00\x00UL\x04\x00" + len(head).to_bytes(4, "little")
        elements = sorted(self._shared + _encode_all(own))
        body = b"".join(part for _, part in elements)
        return b"\x00" * 128 + b"DICM" + length + head + body + _pixel_element(pixels)


def study_dataset(identity: Identity, exam: Examination, series: Series, number: int) -> Dataset:
    """Return what every object of a series has in common: patient, study, equipment, contrast."""
    profile = VENDORS[exam.vendor]
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = identity.date
    dataset.ContentDate = identity.date
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = identity.time
    dataset.ContentTime = identity.time
    dataset.AccessionNumber = ""
    dataset.Modality = "MR"
    dataset.Manufacturer = profile.manufacturer
    dataset.InstitutionName = identity.institution
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "CARDIAC MR"
    dataset.SeriesDescription = dataset.ProtocolName = series.name
    dataset.ManufacturerModelName = profile.model[exam.field_t]
    dataset.DeviceSerialNumber = "000000"
    dataset.SoftwareVersions = profile.software
    dataset.PatientName = identity.patient_name
    dataset.PatientID = identity.patient_id
    dataset.PatientBirthDate = identity.birth_date
    dataset.PatientSex = identity.sex
    dataset.PatientWeight = decimal(identity.weight_kg)
    dataset.PatientSize = decimal(identity.height_m)
    dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = "HEART"
    dataset.MagneticFieldStrength = decimal(exam.field_t)
    dataset.StudyInstanceUID = make_uid(identity.uid_root, "study")
    dataset.FrameOfReferenceUID = make_uid(identity.uid_root, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.StudyID = "1"
    dataset.SeriesNumber = number
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = series.stack.size_px
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.HighBit = (16, 15) if exam.vendor == "canon" else (12, 11)
    if int(series.stored.max()) > 4095:
        dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.PixelRepresentation = 0
    if series.kind == "lge":
        dataset.ContrastBolusAgent = "Gadobutrol"
    return dataset


def _classic_elements(exam: Examination, series: Series) -> Dataset:
    """Elements of the classic MR image module that a series shares."""
    profile = VENDORS[exam.vendor]
    late = series.kind == "lge"
    dataset = Dataset()
    dataset.SOPClassUID = CLASSIC_MR
    kind = "LOCALIZER" if series.kind == "localizer" else "M"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", kind]
    dataset.ScanningSequence = ["GR", "IR"] if late else "GR"
    dataset.SequenceVariant = ["SK", "SP", "MP"] if late else ["SK", "SS"]
    dataset.ScanOptions = profile.scan_options
    dataset.MRAcquisitionType = "2D"
    if profile.sequence_name:
        dataset.SequenceName = "*tfl2d1" if late and exam.vendor == "siemens" else (
            profile.sequence_name
        )  # fmt: skip
    dataset.SliceThickness = decimal(series.stack.thickness_mm)
    dataset.RepetitionTime = decimal(2 * exam.rr_ms if late else profile.tr_ms)
    dataset.EchoTime = decimal(profile.te_ms)
    dataset.FlipAngle = "20" if late else decimal(profile.flip_deg)
    dataset.ImagingFrequency = decimal(42.577 * exam.field_t)
    dataset.ImagedNucleus = "1H"
    dataset.EchoTrainLength = 1
    if late:
        dataset.InversionTime = decimal(series.inversion_ms)
    if profile.writes_slice_spacing and len(series.stack.origin_mm) > 1:
        dataset.SpacingBetweenSlices = decimal(series.stack.step_mm)
    dataset.NominalInterval = round(exam.rr_ms)
    dataset.HeartRate = round(60_000 / exam.rr_ms)
    dataset.CardiacNumberOfImages = len(series.trigger_ms)
    dataset.PixelSpacing = decimals([series.stack.spacing_mm] * 2)
    dataset.ImageOrientationPatient = decimals([*series.stack.columns, *series.stack.rows])
    if profile.rescale:
        dataset.RescaleIntercept = "0"
        dataset.RescaleSlope = decimal(exam.slope)
        dataset.RescaleType = "normalized"
    return dataset


def _private_elements(exam: Examination, series: Series) -> Dataset:
    """The vendor's own groups, which de-identification may remove without harm."""
    dataset = Dataset()
    matrix = series.stack.size_px
    frames, slices = len(series.trigger_ms), len(series.stack.origin_mm)
    if exam.vendor == "siemens":
        block = dataset.private_block(0x0051, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0B, "SH", f"{matrix}*{matrix}")
        block.add_new(0x0F, "LO", "BO1,2;SP1-3")
    elif exam.vendor == "philips":
        block = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x10, "CS", "TRIGGERED")
        block.add_new(0x17, "SL", frames)
        block.add_new(0x18, "SL", slices)
        block.add_new(0x20, "LO", "TFE" if series.kind == "lge" else "B-TFE")
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        # Floating-point value = displayed value / (RescaleSlope * ScaleSlope).
        block.add_new(0x0E, "FL", 0.01)
    elif exam.vendor == "ge":
        block = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
        block.add_new(0x88, "SS", frames)
        block.add_new(0x9C, "LO", "mde" if series.kind == "lge" else "fiesta")
        block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x2F, "SS", 0)
    return dataset


def _own_elements(
    stack: PlaneStack, place: tuple[int, int], trigger_ms: float, number: int, uid: str
) -> Dataset:
    frame, z = place
    origin = stack.origin_mm[z]
    own = Dataset()
    own.SOPInstanceUID = uid
    own.TriggerTime = decimal(trigger_ms)
    own.ImagePositionPatient = decimals(origin)
    own.SliceLocation = decimal(float(origin @ np.cross(stack.columns, stack.rows)))
    own.InstanceNumber = number
    own.TemporalPositionIdentifier = frame + 1
    return own


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
        ``series_per_slice`` gives one series a slice, anything else one series in all.
    order : sequence of int, optional
        InstanceNumber - 1 of the images counted slice by slice; by default their own count.

    Returns
    -------
    list of list of Instance
        One list per DICOM series, in the order of InstanceNumber.
    """
    num_frames, num_slices = series.stored.shape[:2]
    places = [(frame, z) for z in range(num_slices) for frame in range(num_frames)]
    per_slice = packaging == "series_per_slice" and series.kind == "cine"
    groups = [places[z * num_frames : (z + 1) * num_frames] for z in range(num_slices)]
    if not per_slice:
        groups = [places]
    encoded = []
    for offset, group in enumerate(groups):
        shared = study_dataset(identity, exam, series, number + offset)
        shared.update(_classic_elements(exam, series))
        if private_tags:
            shared.update(_private_elements(exam, series))
        shared.SeriesInstanceUID = make_uid(identity.uid_root, "series", number + offset)
        encoder = SeriesEncoder(shared)
        ranks = order if order is not None and len(order) == len(group) else range(len(group))
        instances: list[tuple[int, Instance]] = []
        for rank, place in zip(ranks, group, strict=True):
            uid = make_uid(identity.uid_root, "image", number + offset, *place)
            trigger = float(series.trigger_ms[place[0]])
            own = _own_elements(series.stack, place, trigger, rank + 1, uid)
            content = encoder.encode(own, series.stored[place])
            instances.append((rank, Instance(uid, content, place)))
        encoded.append([instance for _, instance in sorted(instances, key=lambda pair: pair[0])])
    return encoded
