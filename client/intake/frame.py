"""One image plane as intake sees it. Axes: Y rows, X columns; positions in patient LPS mm."""

import math
from dataclasses import dataclass

import numpy as np

from client.intake.tags import NO_TAGS, Tags

__all__ = ["VENDORS", "Frame", "Pixels", "geometry_problem", "vendor_of"]

MAX_MM = 5_000.0
MIN_PIXEL_MM, MAX_PIXEL_MM = 0.1, 10.0
VENDORS = ("siemens", "philips", "ge", "canon", "other")


@dataclass(frozen=True, slots=True)
class Pixels:
    """Where the pixels of a frame's file lie.

    ``offset`` is the byte at which uncompressed little-endian pixels begin, or -1 where a decoder
    is needed.
    """

    path: str
    offset: int
    bits: int
    signed: bool
    num_frames: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One plane at one time.

    Attributes
    ----------
    position_mm : tuple of float
        Centre of the first pixel (row 0, column 0), LPS mm.
    orientation : tuple of float
        Unit vectors along a row (increasing column) and along a column (increasing row), LPS.
    pixel_spacing_mm : tuple of float
        Distance between rows, distance between columns.
    trigger_ms : float
        Delay after the R wave; NaN where the file does not say.
    temporal_index : float
        The scanner's own number of the phase; NaN where absent. Canon writes 1 everywhere.
    text : str
        Series description, protocol and sequence name, lower case; for sorting, never stored.
    rr_ms : float
        Length of a heart beat while the frame was acquired, as stated; NaN where it is not.
    person : bytes
        Digest of birth date and sex, to tell two persons under one number; never stored.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    series_number: int
    sop_uid: str
    frame_index: int
    vendor: str
    field_strength_t: float
    image_type: tuple[str, ...]
    text: str
    inversion_recovery: bool
    inversion_ms: float
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    thickness_mm: float
    trigger_ms: float
    temporal_index: float
    rows: int
    cols: int
    slope: float
    intercept: float
    pixels: Pixels
    rr_ms: float = math.nan
    tags: Tags = NO_TAGS
    person: bytes = b""

    @property
    def along_row(self) -> np.ndarray:
        """Unit vector of increasing column, LPS."""
        return np.array(self.orientation[:3])

    @property
    def along_column(self) -> np.ndarray:
        """Unit vector of increasing row, LPS."""
        return np.array(self.orientation[3:])

    @property
    def normal(self) -> np.ndarray:
        """Unit normal of the plane, row x column, LPS."""
        normal = np.cross(self.along_row, self.along_column)
        # Files hold six digits of each direction; unscaled, 10 mm would become 10.00001.
        return normal / np.linalg.norm(normal)

    @property
    def centre_mm(self) -> np.ndarray:
        """Centre of the image, LPS mm."""
        # Plain Python, as it is asked for every frame several times.
        dy, dx = self.pixel_spacing_mm
        cols, rows = self.cols - 1, self.rows - 1
        along, down = self.orientation[:3], self.orientation[3:]
        return np.array(
            [
                p + a * dx * cols / 2 + d * dy * rows / 2
                for p, a, d in zip(self.position_mm, along, down, strict=True)
            ]
        )


def geometry_problem(frame: Frame) -> str | None:
    """Return why a frame's geometry cannot be used, or ``None``.

    A fifth of damaged headers parse without an error, with other numbers; these are the numbers
    that an image in a patient can have.
    """
    if len(frame.position_mm) != 3 or len(frame.orientation) != 6:
        return "no image position or orientation"
    if len(frame.pixel_spacing_mm) != 2:
        return "no pixel spacing"
    # Plain Python: numpy on three numbers would cost more than reading the file.
    a, b, c, d, e, f = frame.orientation
    lengths = (a * a + b * b + c * c, d * d + e * e + f * f, 1.0 + a * d + b * e + c * f)
    if not all(abs(length - 1.0) < 0.01 for length in lengths):
        return "impossible image position or orientation"
    if not all(abs(x) < MAX_MM for x in frame.position_mm):
        return "impossible image position or orientation"
    if not all(MIN_PIXEL_MM <= step <= MAX_PIXEL_MM for step in frame.pixel_spacing_mm):
        return "impossible pixel spacing"
    if not (math.isfinite(frame.slope) and math.isfinite(frame.intercept)) or frame.slope == 0:
        return "impossible intensity scale"
    return None


def vendor_of(manufacturer: str) -> str:
    """Return the vendor behind a Manufacturer string, one of `VENDORS`."""
    name = manufacturer.lower()
    if "siemens" in name:
        return "siemens"
    if "philips" in name:
        return "philips"
    if name.startswith("ge ") or name == "ge" or "general electric" in name:
        return "ge"
    # Toshiba's scanners became Canon's in 2018; the string depends on the year of the software.
    if "canon" in name or "toshiba" in name:
        return "canon"
    return "other"
