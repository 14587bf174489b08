"""What intake needs to know of one image plane, read from a DICOM file without its pixels.

Only the fields of `Frame` are ever read; nothing else of a file enters the program, so nothing else
can leave it. Classic files give one frame, enhanced multi-frame files one per frame.
"""

import hashlib
import math
import struct
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from client.intake.elements import walk
from client.intake.enhanced import ENHANCED_MR, enhanced_frames
from client.intake.frame import Frame, Pixels, geometry_problem, vendor_of
from client.intake.opening import open_dicom
from client.intake.quiet import quietly
from client.intake.scale import SCALE_TAGS, linear_scale
from client.intake.tags import read_tags
from protocol.errors import DataError

__all__ = ["UNREADABLE", "read_header"]

# A hostile or broken file raises any of these out of the parser (eight classes in 10,000 mutants).
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

CLASSIC_MR = "1.2.840.10008.5.1.4.1.1.4"
# Screenshots and scanned paper, in one frame or many, grey or colour.
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MAX_FRAME_PIXELS = 2048 * 2048
MAX_FRAMES = 20_000

KEYWORDS = (
    "AcquisitionContrast",
    "AcquisitionTime",
    "BitsAllocated",
    "BurnedInAnnotation",
    "CardiacNumberOfImages",
    "Columns",
    "HeartRate",
    "ContrastBolusAgent",
    "EchoTime",
    "FlipAngle",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InversionTime",
    "MagneticFieldStrength",
    "Manufacturer",
    "NominalInterval",
    "NumberOfFrames",
    "PatientBirthDate",
    "PatientID",
    "PatientSex",
    "PerFrameFunctionalGroupsSequence",
    "PixelRepresentation",
    "PixelSpacing",
    "ProtocolName",
    "PulseSequenceName",
    "RecognizableVisualFeatures",
    "RepetitionTime",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "ScanningSequence",
    "SequenceName",
    "SequenceVariant",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SharedFunctionalGroupsSequence",
    "SliceThickness",
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "TemporalPositionIdentifier",
    "TriggerTime",
)
TAG = {keyword: Tag(keyword) for keyword in KEYWORDS}
NUMBER = {keyword: int(tag) for keyword, tag in TAG.items()}
TAGS = (*TAG.values(), *SCALE_TAGS)
WANTED = frozenset(int(tag) for tag in TAGS)
PIXEL_DATA = 0x7FE00010
# What switches the character set, and what separates values.
ESCAPES = frozenset(b"\x1b\\")


class _Raw:
    """Values of a dataset from their bytes: pydicom's conversion costs more than the read."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.elements = {int(tag): element for tag, element in dataset.items()}

    def words(self, keyword: str) -> tuple[str, ...]:
        element = self.elements.get(NUMBER[keyword])
        if element is None or element.value is None:
            return ()
        if not isinstance(element.value, bytes):
            return (str(element.value),)
        text = element.value.decode("latin-1").strip("\0 ")
        if "\\" not in text:
            return (text,) if text else ()
        return tuple(word.strip() for word in text.split("\\"))

    def name(self, keyword: str) -> str:
        """A text that may be in any character set; pydicom knows them all."""
        element = self.elements.get(NUMBER[keyword])
        plain = element.value if element is not None else b""
        if isinstance(plain, bytes) and plain.isascii() and not ESCAPES.intersection(plain):
            return plain.decode("ascii").strip("\0 ")
        return str(self.dataset.get(keyword) or "").strip()

    def word(self, keyword: str) -> str:
        words = self.words(keyword)
        return words[0] if words else ""

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        words = self.words(keyword)
        if len(words) != count:
            return ()
        return tuple(float(word) for word in words)

    def number(self, keyword: str, default: float = math.nan) -> float:
        word = self.word(keyword)
        return float(word) if word else default

    def short(self, keyword: str, default: int = 0) -> int:
        raw = self.elements.get(NUMBER[keyword])
        if raw is None:
            return default
        if not isinstance(raw.value, bytes):
            return int(raw.value)
        return int.from_bytes(raw.value[:2], "little" if raw.is_little_endian else "big")


def read_header(path: Path, *, bare: bool = False) -> tuple[Frame, ...] | str:
    """Read the frames of one file.

    Parameters
    ----------
    path : Path
        Any file.
    bare : bool
        Whether files without preamble and file meta information are read.

    Returns
    -------
    tuple of Frame, or str
        The frames; or why the file cannot be used, in words that name no patient and no file.
    """
    try:
        with open_dicom(path, bare=bare) as (stream, is_bare, is_deflated), quietly():
            found = None if is_bare or is_deflated else walk(stream, WANTED)
            if found is None:
                dataset = dcmread(
                    stream, stop_before_pixels=True, specific_tags=list(TAGS), force=is_bare
                )
                # A deflated file's pixels lie nowhere in it.
                offset = -1 if is_deflated else _pixel_offset(stream, _syntax(dataset))
            else:
                dataset, offset = found
            return _frames(dataset, offset, path)
    except DataError as error:
        return error.sentence
    except UNREADABLE:
        return "damaged header"


def _syntax(dataset: Dataset) -> str:
    stated = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if stated is not None:
        return str(stated)
    implicit, little = dataset.original_encoding
    if not little:
        return str(ExplicitVRBigEndian)
    return str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)


def _frames(dataset: Dataset, offset: int, path: Path) -> tuple[Frame, ...] | str:
    raw = _Raw(dataset)
    sop_class = raw.word("SOPClassUID")
    if sop_class == SECONDARY_CAPTURE or sop_class.startswith(f"{SECONDARY_CAPTURE}."):
        return "secondary capture, which may show text"
    if sop_class not in (CLASSIC_MR, ENHANCED_MR):
        return "not an MR image"
    if raw.word("RecognizableVisualFeatures") == "YES":
        return "recognizable features in the pixels"
    if raw.word("BurnedInAnnotation") == "YES":
        return "text burned into the pixels"
    if raw.short("SamplesPerPixel", 1) != 1:
        return "colour image"
    shape = (raw.short("Rows"), raw.short("Columns"))
    num_frames = int(raw.number("NumberOfFrames", 1))
    if not (1 <= shape[0] * shape[1] <= MAX_FRAME_PIXELS and 1 <= num_frames <= MAX_FRAMES):
        return "impossible matrix size"
    pixels = Pixels(
        path=str(path),
        offset=offset,
        bits=raw.short("BitsAllocated", 16),
        signed=raw.short("PixelRepresentation") == 1,
        num_frames=num_frames,
    )
    template = _template(raw, dataset, shape, pixels)
    if not (template.patient_id and template.study_uid and template.series_uid):
        return "no patient, study or series number"
    if sop_class == ENHANCED_MR:
        frames = enhanced_frames(dataset, template, num_frames)
    elif num_frames != 1:
        return "several frames in a classic image, without their geometry"
    else:
        frames = (template,)
    if isinstance(frames, str):
        return frames
    return next((reason for frame in frames if (reason := geometry_problem(frame))), frames)


def _template(raw: _Raw, dataset: Dataset, shape: tuple[int, int], pixels: Pixels) -> Frame:
    """A frame with everything the file states once; enhanced files fill in the rest per frame."""
    slope, intercept = linear_scale(dataset, raw.number)
    text = (
        raw.word(keyword)
        for keyword in ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
    )
    return Frame(
        patient_id=raw.name("PatientID"),
        study_uid=raw.word("StudyInstanceUID"),
        series_uid=raw.word("SeriesInstanceUID"),
        series_number=int(raw.number("SeriesNumber", 0)),
        sop_uid=raw.word("SOPInstanceUID"),
        frame_index=0,
        vendor=vendor_of(raw.word("Manufacturer")),
        field_strength_t=raw.number("MagneticFieldStrength"),
        image_type=tuple(word.upper() for word in raw.words("ImageType")),
        text=" | ".join(part.lower() for part in text if part),
        inversion_recovery="IR" in raw.words("ScanningSequence"),
        inversion_ms=raw.number("InversionTime", 0.0),
        position_mm=raw.numbers("ImagePositionPatient", 3),
        orientation=raw.numbers("ImageOrientationPatient", 6),
        pixel_spacing_mm=raw.numbers("PixelSpacing", 2),
        thickness_mm=raw.number("SliceThickness"),
        trigger_ms=raw.number("TriggerTime"),
        temporal_index=raw.number("TemporalPositionIdentifier"),
        rows=shape[0],
        cols=shape[1],
        slope=slope,
        intercept=intercept,
        pixels=pixels,
        rr_ms=_rr_ms(raw),
        tags=read_tags(raw.words),
        person=_person(raw.word("PatientBirthDate"), raw.word("PatientSex")),
    )


def _rr_ms(raw: _Raw) -> float:
    # Scanners state the interval, its rounded inverse, both, or 0 for either.
    interval, rate = raw.number("NominalInterval", 0.0), raw.number("HeartRate", 0.0)
    if interval > 0:
        return interval
    return 60_000.0 / rate if rate > 0 else math.nan


def _person(birth_date: str, sex: str) -> bytes:
    # Where either is empty, as in a study made anonymous, nothing can be told.
    if not (birth_date and sex):
        return b""
    return hashlib.sha256(f"{birth_date}/{sex.upper()}".encode()).digest()[:8]


def _pixel_offset(stream: BinaryIO, syntax: str) -> int:
    """Return where uncompressed little-endian pixels begin, or -1 where there are none."""
    explicit = syntax == "1.2.840.10008.1.2.1"
    if not explicit and syntax != "1.2.840.10008.1.2":
        return -1
    start = stream.tell()
    head = stream.read(12)
    if len(head) < 12 or head[:4] != struct.pack("<HH", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF):
        return -1
    length = struct.unpack("<I", head[8:12] if explicit else head[4:8])[0]
    return -1 if length == 0xFFFFFFFF else start + (12 if explicit else 8)
