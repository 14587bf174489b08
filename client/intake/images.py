"""Pixels of the chosen frames, and of no others.

Axes: T phases, Z slices, Y rows, X columns.
"""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
from scipy.ndimage import shift as shift_image

from client.intake.decoder import Decoder
from client.intake.frame import Frame
from client.intake.headers import UNREADABLE
from client.intake.stacks import StackPlan
from protocol.errors import DataError

__all__ = ["decode", "read_plane"]


def decode(plan: StackPlan, decoder: Decoder | None = None) -> np.ndarray:
    """Read a stack in the scanner's physical values.

    Parameters
    ----------
    plan : StackPlan
        Which frame stands where.
    decoder : Decoder, optional
        For compressed pixels; shared by stacks that are read one after the other.

    Returns
    -------
    ndarray
        float32 (T, Z, Y, X): stored value x RescaleSlope + RescaleIntercept.

    Raises
    ------
    DataError
        If pixels are missing, damaged, or compressed in a way that cannot be decoded here.
    """
    stack = np.empty(plan.shape, dtype=np.float32)
    with Decoder() if decoder is None else nullcontext(decoder) as use:
        for t, phase in enumerate(plan.frames):
            for z, frame in enumerate(phase):
                stack[t, z] = _plane(frame, use)
                if frame.slope != 1.0 or frame.intercept != 0.0:
                    stack[t, z] *= frame.slope
                    stack[t, z] += frame.intercept
    # Slices that were planned with an in-plane offset are brought onto the affine's grid.
    for z in map(int, np.flatnonzero(np.abs(plan.shift_px).max(axis=1) > 0.5)):
        stack[:, z] = shift_image(stack[:, z], (0.0, *plan.shift_px[z]), order=1, mode="nearest")
    if not np.isfinite(stack).all():
        raise DataError("pixel values are not finite numbers")
    return stack


def read_plane(frame: Frame, decoder: Decoder) -> np.ndarray:
    """Read one frame in the scanner's physical values, float32 (Y, X).

    Raises
    ------
    DataError
        If its pixels are missing, damaged or cannot be decoded.
    """
    return (_plane(frame, decoder) * frame.slope + frame.intercept).astype(np.float32)


def _plane(frame: Frame, decoder: Decoder) -> np.ndarray:
    if frame.pixels.offset < 0:
        shape = (frame.rows, frame.cols)
        return decoder.plane(Path(frame.pixels.path), frame.frame_index, shape)
    try:
        return _raw_plane(frame)
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
