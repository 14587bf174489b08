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

from protocol.arrays import Arrays, ArraySpec, Layout, check_finite, layout
from protocol.compression_config import Method
from protocol.errors import PayloadError
from protocol.packed_numbers import (
    BF16_BYTES,
    dequantise,
    largest_places,
    quantise,
    read_bf16,
    refusal,
    to_bf16,
)

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


def _flat(change: Arrays, names: list[str]) -> np.ndarray:
    parts = [np.zeros(0, np.float32), *(change[name].reshape(-1) for name in names)]
    return np.concatenate(parts)


def _spread(piece: np.ndarray, count: int, names: list[str], model: Layout, where: str) -> Arrays:
    """Return the large arrays of which ``top-k`` sent a few numbers; the others are 0."""
    places, values = piece[: 4 * count].view("<u4"), piece[4 * count :]
    flat = np.zeros(_num_large(model), np.float32)
    if count and (int(places[-1]) >= flat.size or bool((places[1:] <= places[:-1]).any())):
        raise refusal(where, "has places that repeat, do not rise, or are not in the model")
    flat[places] = read_bf16(values, "the largest changes", where)
    arrays, start = {}, 0
    for name in names:
        end = start + math.prod(model[name].shape)
        arrays[name] = flat[start:end].reshape(model[name].shape)
        start = end
    return arrays


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
        places = largest_places(flat, codec.chosen(flat.size))
        pieces += [places.astype("<u4"), to_bf16(flat[places])]
    raw = b"".join(np.ascontiguousarray(piece).tobytes() for piece in pieces)
    return np.frombuffer(raw, np.uint8)


def _encoded(array: np.ndarray, spec: ArraySpec, codec: Codec) -> np.ndarray:
    if not _is_float(spec):
        return array.astype(array.dtype.newbyteorder("<"))
    if codec.method == "bf16" or not _is_large(spec):
        return to_bf16(array.reshape(-1))
    if codec.method == "top-k":
        return np.zeros(0, np.uint8)
    rows = array.reshape(spec.shape[0], array.size // max(spec.shape[0], 1))
    scales, codes = quantise(rows)
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
        raise refusal(where, f"is no {size} bytes of {codec.method}")
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
        return dequantise(piece, spec, name, where)
    return read_bf16(piece, name, where).reshape(spec.shape)


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
