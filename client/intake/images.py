"""Pixels of the chosen frames, and of no others.

Axes: T phases, Z slices, Y rows, X columns.
"""

from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.pixels import get_decoder, pixel_array
from scipy.ndimage import shift as shift_image

from client.intake.frame import Frame
from client.intake.headers import UNREADABLE
from client.intake.quiet import quietly
from client.intake.stacks import StackPlan
from protocol.errors import DataError

__all__ = ["decode"]

# Syntaxes of still images. Anything else, or a decoder that is not installed, is refused before it
# is opened: a 31 MB run-length file has unfolded to 4 GB.
DECODABLE = frozenset(
    {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.91",
    }
)
MAX_UNFOLDING = 200


def decode(plan: StackPlan) -> np.ndarray:
    """Read a stack in the scanner's physical values.

    Returns
    -------
    ndarray
        float32 (T, Z, Y, X): stored value x RescaleSlope + RescaleIntercept.

    Raises
    ------
    DataError
        If pixels are missing, damaged, or compressed in a way that cannot be decoded here.
    """
    num_phases, num_slices, rows, cols = plan.shape
    stack = np.empty((num_phases, num_slices, rows, cols), dtype=np.float32)
    for t, phase in enumerate(plan.frames):
        for z, frame in enumerate(phase):
            stack[t, z] = _plane(frame)
            if frame.slope != 1.0 or frame.intercept != 0.0:
                stack[t, z] *= frame.slope
                stack[t, z] += frame.intercept
    # Slices that were planned with an in-plane offset are brought onto the affine's grid.
    for z in map(int, np.flatnonzero(np.abs(plan.shift_px).max(axis=1) > 0.5)):
        stack[:, z] = shift_image(stack[:, z], (0.0, *plan.shift_px[z]), order=1, mode="nearest")
    if not np.isfinite(stack).all():
        raise DataError("pixel values are not finite numbers")
    return stack


def _plane(frame: Frame) -> np.ndarray:
    try:
        return _raw_plane(frame) if frame.pixels.offset >= 0 else _coded_plane(frame)
    except UNREADABLE as error:
        raise DataError("pixels are damaged or cannot be decoded") from error


def _raw_plane(frame: Frame) -> np.ndarray:
    pixels = frame.pixels
    kinds = {(8, False): "u1", (8, True): "i1", (16, False): "<u2", (16, True): "<i2"}
    dtype = np.dtype(kinds[(pixels.bits, pixels.signed)])
    count = frame.rows * frame.cols
    with Path(pixels.path).open("rb") as stream:
        stream.seek(pixels.offset + frame.frame_index * count * dtype.itemsize)
        data = stream.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype=dtype, count=count).reshape(frame.rows, frame.cols)


def _coded_plane(frame: Frame) -> np.ndarray:
    path = Path(frame.pixels.path)
    with quietly():
        return _decoded(frame, path)


def _decoded(frame: Frame, path: Path) -> np.ndarray:
    syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    uncompressed = not syntax.is_compressed
    if syntax not in DECODABLE or not (uncompressed or get_decoder(syntax).is_available):
        raise DataError("pixels are compressed in a way this installation cannot decode")
    unfolded = frame.rows * frame.cols * frame.pixels.bits // 8 * frame.pixels.num_frames
    if unfolded > MAX_UNFOLDING * path.stat().st_size:
        raise DataError("compressed pixels unfold to an implausible size")
    index = frame.frame_index if frame.pixels.num_frames > 1 else 0
    return np.asarray(pixel_array(path, index=index))
