"""Updates in fewer bytes: bf16, int8 by channel, or the largest few, with what was lost made good.

What travels is the change of a model, packed into one array of bytes whose length follows from the
model's layout and the method alone: nothing in a payload says how long it is, and a payload of
another length is refused before anything is allocated. No method knows how models are averaged.

``int8`` scales each output channel (the first axis) by its largest change, ``s >= max|x| / 127``,
so that ``|x - s q| <= s / 2``. ``top-k`` sends the ``k`` largest of all changes with their places.
Both lose something each round, and add what was lost to the next (error feedback; Seide et al.
2014, Interspeech, "1-bit stochastic gradient descent"; Stich et al. 2018, NeurIPS, "Sparsified SGD
with memory"). With the change ``x_t``, the loss ``e_t`` and ``C`` the decoded payload::

    v_t = x_t + e_{t-1},    e_t = v_t - C(v_t),    so  sum C(v_t) = sum x_t - e_T

Arrays of one axis or none (biases, norms) are few and go as bf16 with every method. What is not
float32 (counters) goes unchanged, as it is.
"""

import math
from typing import NamedTuple, Self

import numpy as np

from protocol.arrays import MAX_MAGNITUDE, Arrays, ArraySpec, Layout, check_finite, layout
from protocol.compression_config import Method
from protocol.errors import PayloadError

__all__ = [
    "DELTA",
    "Codec",
    "apply_change",
    "change_of",
    "decode",
    "encode",
    "encode_with_feedback",
    "encoded_size",
    "no_residual",
]

# The name of the one array a compressed message carries.
DELTA = "delta"
STEPS = 127
BF16_BYTES = 2
# Smallest normal float32: a scale below it would lose its bits, and its channel all it holds.
SMALLEST = 2.0**-126


class Codec(NamedTuple):
    """How a change is packed.

    Attributes
    ----------
    method : {"bf16", "int8", "top-k"}
        Not "none": an update that is not compressed is not packed.
    fraction : float
        Share of the numbers ``top-k`` sends, in (0, 1].
    """

    method: Method
    fraction: float = 0.01

    @classmethod
    def of(cls, method: Method, fraction: float) -> Self | None:
        """Return how to pack, or None where nothing is packed."""
        return None if method == "none" else cls(method, fraction)

    @property
    def feeds_back(self) -> bool:
        """Whether what was lost is added to the next change; bf16 loses 0.4 % of each number."""
        return self.method in ("int8", "top-k")

    def chosen(self, num_large: int) -> int:
        """Return ``k``, how many of the numbers in large arrays ``top-k`` sends."""
        return math.ceil(self.fraction * num_large)


def _is_float(spec: ArraySpec) -> bool:
    return spec.dtype == "float32"


def _is_large(spec: ArraySpec) -> bool:
    return _is_float(spec) and len(spec.shape) >= 2


def _num_large(model: Layout) -> int:
    return sum(math.prod(spec.shape) for spec in model.values() if _is_large(spec))


def _part_size(spec: ArraySpec, codec: Codec) -> int:
    count = math.prod(spec.shape)
    if not _is_float(spec):
        return count * np.dtype(spec.dtype).itemsize
    if codec.method == "bf16" or not _is_large(spec):
        return count * BF16_BYTES
    return spec.shape[0] * BF16_BYTES + count if codec.method == "int8" else 0


def encoded_size(model: Layout, codec: Codec) -> int:
    """Return the length of every payload of a model of this layout, bytes."""
    size = sum(_part_size(spec, codec) for spec in model.values())
    if codec.method == "top-k":
        size += codec.chosen(_num_large(model)) * (4 + BF16_BYTES)
    return size


# Numbers of two bytes --------------------------------------------------------------------------


def _to_bf16(values: np.ndarray) -> np.ndarray:
    """Return float32 as the upper halves of their bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16).astype("<u2")


def _to_bf16_up(values: np.ndarray) -> np.ndarray:
    """Return float32 >= 0 as bf16 rounded up, so that nothing exceeds what it scales."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) >> 16).astype("<u2")


def _from_bf16(halves: np.ndarray) -> np.ndarray:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _read_bf16(piece: np.ndarray, name: str, where: str) -> np.ndarray:
    values = _from_bf16(piece.view("<u2"))
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(values).max(initial=0.0))
    # Written so that a NaN is refused too.
    if not largest <= MAX_MAGNITUDE:
        raise _refusal(where, f"'{name}' holds a number that is not finite or beyond 1e9")
    return values


def _refusal(where: str, problem: str) -> PayloadError:
    return PayloadError(
        f"{where}: the compressed change {problem}; both ends must run the same version and study."
    )


# The methods' one large array ------------------------------------------------------------------


def _quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bf16 scales (C,) and int8 codes (C, N) of rows (C, N)."""
    if values.size == 0:
        return np.zeros(values.shape[0], "<u2"), np.zeros(values.shape, np.int8)
    largest = np.abs(values).max(axis=1).astype(np.float64)
    scales = np.where(largest > 0, np.maximum(largest / STEPS, SMALLEST), 0.0).astype(np.float32)
    halves = _to_bf16_up(scales)
    divisor = _from_bf16(halves)
    divisor = np.where(divisor > 0, divisor, np.float32(1))[:, np.newaxis]
    codes = np.clip(np.rint(values / divisor), -STEPS, STEPS)
    return halves, codes.astype(np.int8)


def _dequantise(piece: np.ndarray, spec: ArraySpec, name: str, where: str) -> np.ndarray:
    channels = spec.shape[0]
    scales = _read_bf16(piece[: channels * BF16_BYTES], f"the scales of {name}", where)
    codes = piece[channels * BF16_BYTES :].view(np.int8).reshape(spec.shape)
    if scales.size and float(scales.min()) < 0:
        raise _refusal(where, f"has a scale below 0 in '{name}'")
    if codes.size and int(codes.min()) < -STEPS:
        raise _refusal(where, f"has a step outside -127 to 127 in '{name}'")
    return codes * scales.reshape(-1, *[1] * (len(spec.shape) - 1))


def _largest(flat: np.ndarray, count: int) -> np.ndarray:
    """Return the ascending places of the ``count`` largest magnitudes; of equals the first."""
    if count == 0:
        return np.zeros(0, np.int64)
    size = np.abs(flat)
    limit = np.partition(size, flat.size - count)[flat.size - count]
    above = np.flatnonzero(size > limit)
    level = np.flatnonzero(size == limit)[: count - above.size]
    return np.sort(np.concatenate((above, level)))


def _flat(change: Arrays, names: list[str]) -> np.ndarray:
    parts = [np.zeros(0, np.float32), *(change[name].reshape(-1) for name in names)]
    return np.concatenate(parts)


def _spread(piece: np.ndarray, count: int, names: list[str], model: Layout, where: str) -> Arrays:
    """Return the large arrays of which ``top-k`` sent a few numbers; the others are 0."""
    places, values = piece[: 4 * count].view("<u4"), piece[4 * count :]
    flat = np.zeros(_num_large(model), np.float32)
    if count and (int(places[-1]) >= flat.size or bool((places[1:] <= places[:-1]).any())):
        raise _refusal(where, "has places that repeat, do not rise, or are not in the model")
    flat[places] = _read_bf16(values, "the largest changes", where)
    arrays, start = {}, 0
    for name in names:
        end = start + math.prod(model[name].shape)
        arrays[name] = flat[start:end].reshape(model[name].shape)
        start = end
    return arrays


# Whole models ----------------------------------------------------------------------------------


def encode(change: Arrays, codec: Codec) -> np.ndarray:
    """Return a change as one array of bytes; the same numbers give the same bytes.

    Parameters
    ----------
    change : Arrays
        From `change_of`, or the sum of one and a residual.

    Returns
    -------
    ndarray
        uint8 (`encoded_size`,).

    Raises
    ------
    PayloadError
        If a number is not finite.
    """
    check_finite(change, "A change to compress")
    model = layout(change)
    pieces = [_encoded(change[name], model[name], codec) for name in sorted(change)]
    if codec.method == "top-k":
        large = [name for name in sorted(change) if _is_large(model[name])]
        flat = _flat(change, large)
        if flat.size >= 2**32:
            raise PayloadError("A model of 2^32 numbers or more is too large for top-k; use int8.")
        places = _largest(flat, codec.chosen(flat.size))
        pieces += [places.astype("<u4"), _to_bf16(flat[places])]
    raw = b"".join(np.ascontiguousarray(piece).tobytes() for piece in pieces)
    return np.frombuffer(raw, np.uint8)


def _encoded(array: np.ndarray, spec: ArraySpec, codec: Codec) -> np.ndarray:
    if not _is_float(spec):
        return array.astype(array.dtype.newbyteorder("<"))
    if codec.method == "bf16" or not _is_large(spec):
        return _to_bf16(array.reshape(-1))
    if codec.method == "top-k":
        return np.zeros(0, np.uint8)
    rows = array.reshape(spec.shape[0], array.size // max(spec.shape[0], 1))
    scales, codes = _quantise(rows)
    return np.concatenate((scales.view(np.uint8), codes.reshape(-1).view(np.uint8)))


def decode(payload: np.ndarray, model: Layout, codec: Codec, where: str) -> Arrays:
    """Return the change that a payload holds, array by array.

    Parameters
    ----------
    payload : ndarray
        uint8 (N,), as received.
    model : Layout
        Of the model it is a change of.
    where : str
        Whose change this is, for the sentence.

    Returns
    -------
    Arrays
        Of the layout ``model``, in its order.

    Raises
    ------
    PayloadError
        If the length is not that of such a model, a scale is negative, a number is not finite or
        beyond `protocol.arrays.MAX_MAGNITUDE`, or places repeat, fall or are not in the model.
    """
    size = encoded_size(model, codec)
    if payload.dtype != np.uint8 or payload.shape != (size,):
        raise _refusal(where, f"is no {size} bytes of {codec.method}")
    found, start = {}, 0
    for name in sorted(model):
        end = start + _part_size(model[name], codec)
        if not _is_large(model[name]) or codec.method != "top-k":
            # A copy, as a piece may start anywhere and numbers of two bytes must not.
            found[name] = _decoded(payload[start:end].copy(), model[name], codec, name, where)
        start = end
    if codec.method == "top-k":
        large = [name for name in sorted(model) if _is_large(model[name])]
        found |= _spread(
            payload[start:].copy(), codec.chosen(_num_large(model)), large, model, where
        )
    return {name: found[name] for name in model}


def _decoded(piece: np.ndarray, spec: ArraySpec, codec: Codec, name: str, where: str) -> np.ndarray:
    if not _is_float(spec):
        dtype = np.dtype(spec.dtype)
        return piece.view(dtype.newbyteorder("<")).astype(dtype).reshape(spec.shape)
    if codec.method == "int8" and _is_large(spec):
        return _dequantise(piece, spec, name, where)
    return _read_bf16(piece, name, where).reshape(spec.shape)


def change_of(new: Arrays, old: Arrays) -> Arrays:
    """Return what is packed: ``new - old`` of float32 arrays, and ``new`` itself of all others."""
    return {
        name: np.asarray(array - old[name]) if array.dtype == np.float32 else array
        for name, array in new.items()
    }


def apply_change(old: Arrays, change: Arrays) -> Arrays:
    """Return the model after a change from `decode`, whose arrays become the model's.

    One addition of float32 a number: the same bits on every machine. The order is that of ``old``.
    """
    for name, array in old.items():
        if array.dtype == np.float32:
            np.add(array, change[name], out=change[name])
    return {name: change[name] for name in old}


def no_residual(model: Arrays) -> Arrays:
    """Return the residual before the first round: zeros for what is compressed."""
    return {n: np.zeros(a.shape, np.float32) for n, a in model.items() if a.dtype == np.float32}


def encode_with_feedback(
    change: Arrays, residual: Arrays, codec: Codec
) -> tuple[np.ndarray, Arrays]:
    """Return the payload of a change and of what was lost before, and what is lost now.

    Parameters
    ----------
    change : Arrays
        ``x_t``.
    residual : Arrays
        ``e_{t-1}``, from `no_residual` or the round before.

    Returns
    -------
    tuple
        The payload of ``v_t``, and ``e_t``.

    Raises
    ------
    PayloadError
        As `encode`.
    """
    wanted = {n: np.asarray(a + residual[n]) if n in residual else a for n, a in change.items()}
    payload = encode(wanted, codec)
    sent = decode(payload, layout(wanted), codec, "A compressed change")
    return payload, {name: np.asarray(wanted[name] - sent[name]) for name in residual}
