"""One array in fewer bytes: upper halves of float32, codes of one byte, places of the largest."""

import numpy as np

from protocol.arrays import MAX_MAGNITUDE, ArraySpec
from protocol.errors import PayloadError

__all__ = [
    "BF16_BYTES",
    "dequantise",
    "from_bf16",
    "largest_places",
    "quantise",
    "read_bf16",
    "refusal",
    "to_bf16",
    "to_bf16_up",
]

STEPS = 127
BF16_BYTES = 2
# Smallest normal float32: a scale below it would lose its bits, and its channel all it holds.
SMALLEST = 2.0**-126


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Return float32 as the upper halves of their bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16).astype("<u2")


def to_bf16_up(values: np.ndarray) -> np.ndarray:
    """Return float32 >= 0 as bf16 rounded up, so that nothing exceeds what it scales."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) >> 16).astype("<u2")


def from_bf16(halves: np.ndarray) -> np.ndarray:
    """Return the float32 of upper halves."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def read_bf16(piece: np.ndarray, name: str, where: str) -> np.ndarray:
    """Return the float32 of received bytes; a `PayloadError` if one is not finite or too large."""
    values = from_bf16(piece.view("<u2"))
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(values).max(initial=0.0))
    # Written so that a NaN is refused too.
    if not largest <= MAX_MAGNITUDE:
        raise refusal(where, f"'{name}' holds a number that is not finite or beyond 1e9")
    return values


def refusal(where: str, problem: str) -> PayloadError:
    """Return the error of a compressed change that is not what this version sends."""
    return PayloadError(
        f"{where}: the compressed change {problem}; both ends must run the same version and study."
    )


def quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bf16 scales (C,) and int8 codes (C, N) of rows (C, N)."""
    if values.size == 0:
        return np.zeros(values.shape[0], "<u2"), np.zeros(values.shape, np.int8)
    largest = np.abs(values).max(axis=1).astype(np.float64)
    scales = np.where(largest > 0, np.maximum(largest / STEPS, SMALLEST), 0.0).astype(np.float32)
    halves = to_bf16_up(scales)
    divisor = from_bf16(halves)
    divisor = np.where(divisor > 0, divisor, np.float32(1))[:, np.newaxis]
    codes = np.clip(np.rint(values / divisor), -STEPS, STEPS)
    return halves, codes.astype(np.int8)


def dequantise(piece: np.ndarray, spec: ArraySpec, name: str, where: str) -> np.ndarray:
    """Return the array of received scales and codes; a `PayloadError` if they are impossible."""
    channels = spec.shape[0]
    scales = read_bf16(piece[: channels * BF16_BYTES], f"the scales of {name}", where)
    codes = piece[channels * BF16_BYTES :].view(np.int8).reshape(spec.shape)
    if scales.size and float(scales.min()) < 0:
        raise refusal(where, f"has a scale below 0 in '{name}'")
    if codes.size and int(codes.min()) < -STEPS:
        raise refusal(where, f"has a step outside -127 to 127 in '{name}'")
    return codes * scales.reshape(-1, *[1] * (len(spec.shape) - 1))


def largest_places(flat: np.ndarray, count: int) -> np.ndarray:
    """Return the ascending places of the ``count`` largest magnitudes; of equals the first."""
    if count == 0:
        return np.zeros(0, np.int64)
    size = np.abs(flat)
    limit = np.partition(size, flat.size - count)[flat.size - count]
    above = np.flatnonzero(size > limit)
    level = np.flatnonzero(size == limit)[: count - above.size]
    return np.sort(np.concatenate((above, level)))
