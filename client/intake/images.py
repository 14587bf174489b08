"""Pixels of the chosen frames, and of no others.

Axes: T phases, Z slices, Y rows, X columns.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from client.intake.decoder import Decoder
from client.intake.frame import Frame
from client.intake.headers import UNREADABLE
from client.intake.stacks import StackPlan
from protocol.errors import DataError

__all__ = ["decode", "decode_planes", "moved", "read_plane"]

DTYPES = {(8, False): "u1", (8, True): "i1", (16, False): "<u2", (16, True): "<i2"}

# 4 GB; 60 phases of 30 slices of 512 x 512 are half of it.
MAX_STACK_VALUES = 1_000_000_000


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
        float32 (T, Z, Y, X): stored value x RescaleSlope + RescaleIntercept. Slices at other
        phases are interpolated to the common ones, missing slices from their neighbours.

    Raises
    ------
    DataError
        If pixels are missing, damaged, too many, or compressed in a way that cannot be decoded
        here.
    """
    if math.prod(plan.shape) > MAX_STACK_VALUES:
        raise DataError("the stack is larger than a billion pixels")
    stack = np.empty(plan.shape, dtype=np.float32)
    with Decoder() if decoder is None else nullcontext(decoder) as use:
        for a, z in enumerate(plan.slices):
            _read_slice(plan, a, stack[:, z], use)
    for a, z in enumerate(plan.slices):
        if plan.shift_px[a].any():
            stack[:, z] = moved(stack[:, z], plan.shift_px[a])
    for before, after in zip(plan.slices, plan.slices[1:], strict=False):
        for z in range(before + 1, after):
            share = np.float32((z - before) / (after - before))
            stack[:, z] = (1 - share) * stack[:, before] + share * stack[:, after]
    _refuse_odd_values(stack)
    return stack


def decode_planes(
    frames: Sequence[Frame], shifts_px: Sequence[np.ndarray], decoder: Decoder | None = None
) -> np.ndarray:
    """Read single frames, each moved onto the grid of its stack: float32 (len(frames), Y, X)."""
    out = np.empty((len(frames), frames[0].rows, frames[0].cols), dtype=np.float32)
    with Decoder() if decoder is None else nullcontext(decoder) as use:
        for plane, frame, shift in zip(out, frames, shifts_px, strict=True):
            _read_plane(frame, plane, use)
            plane[:] = moved(plane, shift)
    _refuse_odd_values(out)
    return out


def read_plane(frame: Frame, decoder: Decoder) -> np.ndarray:
    """Read one frame in the scanner's physical values, float32 (Y, X).

    Raises
    ------
    DataError
        If its pixels are missing, damaged or cannot be decoded.
    """
    out = np.empty((frame.rows, frame.cols), dtype=np.float32)
    _read_plane(frame, out, decoder)
    return out


def moved(planes: np.ndarray, shift_px: np.ndarray, *, outside: int | None = None) -> np.ndarray:
    """Move planes (..., Y, X) by whole (rows, columns).

    Whole pixels, so that no value changes and a mask can go the same way back. What comes in from
    outside is ``outside``, or else the nearest pixel's value.
    """
    for axis, shift in zip((-2, -1), (int(s) for s in shift_px), strict=True):
        source = np.arange(planes.shape[axis]) - shift
        inside = np.clip(source, 0, planes.shape[axis] - 1)
        planes = np.take(planes, inside, axis=axis)
        if outside is not None:
            beyond = np.flatnonzero(inside != source)
            np.moveaxis(planes, axis, 0)[beyond] = outside
    return planes


def _read_slice(plan: StackPlan, a: int, out: np.ndarray, decoder: Decoder) -> None:
    """Fill one slice (T, Y, X)."""
    if not plan.blends or not plan.blends[a].mixes:
        for t, phase in enumerate(plan.frames):
            _read_plane(phase[a], out[t], decoder)
        return
    blend, frames = plan.blends[a], plan.cycles[a].frames
    own = np.empty((len(frames), *out.shape[1:]), dtype=np.float32)
    for frame, plane in zip(frames, own, strict=True):
        _read_plane(frame, plane, decoder)
    for t, (low, high, weight) in enumerate(zip(blend.low, blend.high, blend.weight, strict=True)):
        out[t] = own[low] if weight == 0 else (1 - weight) * own[low] + weight * own[high]


def _read_plane(frame: Frame, out: np.ndarray, decoder: Decoder) -> None:
    """Fill one plane (Y, X) with physical values."""
    if frame.pixels.offset < 0:
        shape = (frame.rows, frame.cols)
        out[:] = decoder.plane(Path(frame.pixels.path), frame.frame_index, shape)
    else:
        try:
            out[:] = _raw_plane(frame)
        except UNREADABLE as error:
            raise DataError("pixels are damaged or cannot be decoded") from error
    if frame.slope != 1.0 or frame.intercept != 0.0:
        out *= frame.slope
        out += frame.intercept


def _raw_plane(frame: Frame) -> np.ndarray:
    pixels = frame.pixels
    dtype = np.dtype(DTYPES[(pixels.bits, pixels.signed)])
    count = frame.rows * frame.cols
    with open(pixels.path, "rb", buffering=0) as stream:
        stream.seek(pixels.offset + frame.frame_index * count * dtype.itemsize)
        data = stream.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype=dtype, count=count).reshape(frame.rows, frame.cols)


def _refuse_odd_values(planes: np.ndarray) -> None:
    # A sum is not finite where a value is not; it needs no second array.
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(planes.sum(dtype=np.float64)):
            raise DataError("pixel values are not finite numbers")
