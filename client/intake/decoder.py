"""Compressed pixels, decoded in a process of its own.

The decoders are C and C++ from the nineties on; a damaged or hostile file can crash one, hang it,
or make it ask for any amount of memory. Here that ends a child process and not the hospital's
client: the file is refused, and the next one gets a new child.
"""

import json
import os
import resource
from contextlib import AbstractContextManager
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, pixel_array

from client.intake.headers import UNREADABLE
from client.intake.opening import open_dicom
from client.intake.quiet import quietly
from protocol.errors import DataError

__all__ = ["Decoder"]

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
# What the child may take beyond what it has when it starts.
MAX_MORE_BYTES = 1 << 30
START_S, PLANE_S = 60.0, 5.0
DAMAGED = "pixels are damaged or cannot be decoded"
# Kinds of stored values; a reply is the kind's index and the values, or REFUSED and the reason.
KINDS = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8")
REFUSED = 255


class Decoder(AbstractContextManager["Decoder"]):
    """Decodes planes; its child starts with the first one and ends with the context."""

    def __init__(self) -> None:
        self.child: Any = None
        self.line: Connection | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def plane(self, path: Path, index: int, shape: tuple[int, int]) -> np.ndarray:
        """Return the stored values of one frame of a file, (Y, X).

        Parameters
        ----------
        path : Path
            A file that `client.intake.headers.read_header` has accepted.
        index : int
            Frame of the file, from 0.
        shape : tuple of int
            (rows, columns) that the header stated.

        Raises
        ------
        DataError
            If it is damaged, unfolds beyond bounds, crashes the decoder or takes more than 5 s.
        """
        line = self.line or self._start()
        try:
            line.send_bytes(json.dumps([str(path), index]).encode())
            if not line.poll(PLANE_S):
                self._stop()
                raise DataError("pixels take the decoder more than 5 s")
            reply = line.recv_bytes(1 + 8 * shape[0] * shape[1])
        except (EOFError, OSError) as error:
            self._stop()
            raise DataError("pixels crash the decoder") from error
        return _unpacked(reply, shape)

    def _start(self) -> Connection:
        context = get_context("spawn")
        self.line, theirs = context.Pipe()
        self.child = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.child.start()
        theirs.close()
        if not self.line.poll(START_S):
            self._stop()
            raise DataError("the decoder does not start")
        self.line.recv_bytes(1)
        return self.line

    def _stop(self) -> None:
        if self.line is not None:
            self.line.close()
        if self.child is not None:
            self.child.kill()
            self.child.join()
        self.child = self.line = None


def _unpacked(reply: bytes, shape: tuple[int, int]) -> np.ndarray:
    # Bytes and no objects: the child has read what nobody vouches for.
    if reply[0] == REFUSED:
        raise DataError(reply[1:].decode("ascii"))
    dtype = np.dtype(KINDS[reply[0]])
    if len(reply) - 1 != shape[0] * shape[1] * dtype.itemsize:
        raise DataError(DAMAGED)
    return np.frombuffer(reply, dtype, offset=1).reshape(shape)


def _serve(line: Connection) -> None:
    _limit_memory()
    # The decoders complain on the error stream, past Python's.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    line.send_bytes(b"1")
    # The frames of an enhanced file are asked for one after the other.
    read = lru_cache(maxsize=1)(_read)
    while True:
        try:
            path, index = json.loads(line.recv_bytes())
        except EOFError:
            return
        try:
            with quietly():
                plane = _decoded(read(Path(path), Path(path).stat().st_mtime_ns), index)
            kind = KINDS.index(plane.dtype.newbyteorder("<").str)
            line.send_bytes(bytes([kind]) + plane.astype(KINDS[kind]).tobytes())
        except DataError as error:
            line.send_bytes(bytes([REFUSED]) + error.sentence.encode("ascii"))
        except UNREADABLE:
            line.send_bytes(bytes([REFUSED]) + DAMAGED.encode("ascii"))


def _limit_memory() -> None:
    """Have the allocator refuse a decoder what the machine's memory would pay for."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + MAX_MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _read(path: Path, modified_ns: int) -> Dataset:
    del modified_ns  # A key of the cache above.
    with open_dicom(path) as (stream, _, _):
        dataset = dcmread(stream)
    syntax = dataset.file_meta.TransferSyntaxUID
    available = not syntax.is_compressed or get_decoder(syntax).is_available
    if syntax not in DECODABLE or not available:
        raise DataError("pixels are compressed in a way this installation cannot decode")
    bits = dataset.Rows * dataset.Columns * dataset.BitsAllocated * _num_frames(dataset)
    if bits // 8 > MAX_UNFOLDING * path.stat().st_size:
        raise DataError("compressed pixels unfold to an implausible size")
    return dataset


def _num_frames(dataset: Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _decoded(dataset: Dataset, index: int) -> np.ndarray:
    return np.asarray(pixel_array(dataset, index=index if _num_frames(dataset) > 1 else 0))
