"""Arrays as they travel: Flower's ``ArrayRecord``, without copies and without trust.

Flower carries an array as the bytes of a ``.npy`` file. Writing one costs a single copy; reading
one costs none: the array is a read-only view of the received bytes. The header is never parsed.
It is a function of dtype and shape, so the expected header is written and compared, and a header
that promises 800 GB is a difference of a few bytes and not an allocation.

On the way Flower (1.41.0) cuts each array into chunks named by their SHA-256, and a node sends
every chunk as an HTTP request of its own, two at once, each tried again until it arrives. So a line
that is cut loses the chunks that were on their way and no more, and a node that announces the same
arrays again is asked for what is missing only. But what the operating system still buffers of a
chunk must pass within the 30 s that Flower waits for the answer; a chunk that arrived and whose
receipt was lost is refused when it comes again, which fails the upload; and 180 s without any chunk
end it too (the centre then asks again). The default chunk of 5 MiB takes 42 s at 1 Mbit/s.
``FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE``, bytes, in the environment of whoever makes the message (the
hospital's worker, the centre's ServerApp) sets it: with 262144 a chunk takes 2 s there, and a cut
costs at most two of them, 10 % of 5 MB. The price is a request for each quarter of a MiB.
``tests/protocol/test_interrupted_upload.py`` shows what is sent again.
"""

import io
import math
import re
from functools import lru_cache

import numpy as np
from flwr.app import Array, ArrayRecord

from protocol.arrays import Arrays, dtype_name
from protocol.errors import PayloadError

__all__ = ["from_array_record", "to_array_record"]

NUMPY_STYPE = "numpy.ndarray"
DTYPES = ("float16", "float32", "float64", "int32", "int64", "uint8")
MAX_ARRAYS = 10_000
MAX_NAME = 256
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 2**40
NAME = re.compile(rf"[A-Za-z0-9._/-]{{1,{MAX_NAME}}}")


@lru_cache(maxsize=4096)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def _check_name(name: str, where: str) -> None:
    if NAME.fullmatch(name) is None:
        raise PayloadError(
            f"{where}: an array's name is not 1 to {MAX_NAME} letters, digits or ._-/; "
            "use the network's own state names."
        )


def to_array_record(arrays: Arrays) -> ArrayRecord:
    """Return the arrays as Flower sends them; one copy of the numbers, made array by array.

    Raises
    ------
    PayloadError
        If a dtype is not one of float16/32/64, int32/64 or uint8, or a name is not sendable.
    """
    record = ArrayRecord()
    for name, array in arrays.items():
        _check_name(name, "A model to send")
        dtype = dtype_name(array.dtype)
        if dtype not in DTYPES:
            raise PayloadError(
                f"A model to send: array '{name}' is {dtype}, expected one of "
                f"{', '.join(DTYPES)}; convert it first."
            )
        body = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        record[name] = Array(
            dtype=dtype,
            shape=tuple(array.shape),
            stype=NUMPY_STYPE,
            data=b"".join((_npy_header(dtype, array.shape), body)),
        )
    return record


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        return False
    if not all(type(n) is int and n >= 0 for n in shape):
        return False
    # Also where a zero makes the array empty: numpy multiplies the others in 64 bits.
    return math.prod(max(n, 1) for n in shape) <= MAX_ELEMENTS


def _view(name: str, array: Array, where: str) -> np.ndarray:
    """Return a read-only view of one received array, after every claim about it was checked."""
    problem = None
    shape = array.shape
    if array.stype != NUMPY_STYPE or array.dtype not in DTYPES:
        problem = f"is of a type other than {', '.join(DTYPES)}"
    elif not _is_shape(shape):
        problem = "has no valid shape"
    else:
        count = math.prod(shape)
        # Python integers: a claimed 10**12 x 10**12 stays a number and allocates nothing.
        size = count * np.dtype(array.dtype).itemsize
        header = _npy_header(array.dtype, shape) if size <= len(array.data) else b""
        if len(array.data) != len(header) + size or not array.data.startswith(header):
            problem = f"does not hold the bytes of {array.dtype} {shape}"
    if problem is not None:
        raise PayloadError(f"{where}: array '{name}' {problem}; send it with this version.")
    return np.frombuffer(array.data, dtype=array.dtype, offset=len(header), count=count).reshape(
        shape
    )


def from_array_record(record: ArrayRecord, where: str, max_bytes: int) -> Arrays:
    """Return the received arrays as read-only views of the message's own bytes.

    Parameters
    ----------
    where : str
        Whose arrays these are, for the sentence.
    max_bytes : int
        Largest total size that is accepted, bytes.

    Raises
    ------
    PayloadError
        If there are too many arrays or bytes, a name or dtype is not sendable, or the bytes are
        not exactly those of the claimed dtype and shape in C order.
    """
    if len(record) > MAX_ARRAYS:
        raise PayloadError(
            f"{where}: {len(record)} arrays are more than the {MAX_ARRAYS} allowed; "
            "send the model's arrays only."
        )
    total = sum(len(array.data) for array in record.values())
    if total > max_bytes:
        raise PayloadError(
            f"{where}: {total / 2**20:.1f} MiB of arrays exceed the limit of "
            f"{max_bytes / 2**20:.1f} MiB; raise rounds.max_reply_mb if the model is that large."
        )
    for name in record:
        _check_name(name, where)
    return {name: _view(name, array, where) for name, array in record.items()}
