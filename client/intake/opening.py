"""A DICOM file as a stream that can be parsed: checked for what it is, unfolded within bounds."""

import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from protocol.errors import DataError

__all__ = ["MAX_FILE_BYTES", "open_dicom"]

MAX_FILE_BYTES = 1 << 30
# Deflated images shrink to a half or a tenth; a file of zeros shrinks a thousandfold.
MAX_UNFOLDING = 100
MAX_UNFOLDED_BYTES = 1 << 28

PREAMBLE_BYTES = 128
# The file meta information ends so many bytes after the value of its first element, its length.
LENGTH_END = PREAMBLE_BYTES + 4 + 12
DEFLATED = b"1.2.840.10008.1.2.1.99"
HEAD_BYTES = 1024


@contextmanager
def open_dicom(path: Path, *, bare: bool = False) -> Iterator[tuple[BinaryIO, bool, bool]]:
    """Open a file for pydicom.

    Parameters
    ----------
    path : Path
        A regular file; links are not followed.
    bare : bool
        Whether a file without preamble and file meta information is taken for DICOM.

    Yields
    ------
    stream : BinaryIO
        At its beginning. Of a deflated file, its content unfolded in memory, as an explicit
        little-endian file.
    is_bare, is_deflated : bool
        Whether the preamble is missing, and whether the stream is not the file itself.

    Raises
    ------
    DataError
        Why the file cannot be used, in words that name no patient and no file.
    OSError
        If it cannot be read.
    """
    state = path.lstat()
    if stat.S_ISLNK(state.st_mode):
        raise DataError("symbolic link")
    # A pipe would be waited for, and a device never ends.
    if not stat.S_ISREG(state.st_mode):
        raise DataError("not a regular file")
    if state.st_size > MAX_FILE_BYTES:
        raise DataError("larger than 1 GiB")
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        stream.seek(0)
        if head[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] == b"DICM":
            deflated = DEFLATED in head
            yield (_unfolded(stream) if deflated else stream), False, deflated
        elif not _looks_bare(head):
            raise DataError("not a DICOM file")
        elif not bare:
            raise DataError("no DICOM preamble; set images.without_preamble to read such files")
        else:
            yield stream, True, False


def _looks_bare(head: bytes) -> bool:
    """Return whether a data set begins at once, little-endian, with a group below 0010."""
    return len(head) > 8 and head[0] in (0x02, 0x08) and head[1:4] == b"\0" + head[2:3] + b"\0"


def _unfolded(stream: BinaryIO) -> BytesIO:
    head = stream.read(LENGTH_END)
    start = LENGTH_END + int.from_bytes(head[-4:], "little")
    stream.seek(start)
    folded = stream.read()
    limit = min(MAX_UNFOLDED_BYTES, MAX_UNFOLDING * max(len(folded), 1))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(folded, limit)
    except zlib.error as error:
        raise DataError("deflated content is damaged") from error
    if inflater.unconsumed_tail:
        raise DataError("deflated content unfolds to an implausible size")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    unfolded = BytesIO()
    unfolded.write(bytes(PREAMBLE_BYTES) + b"DICM")
    write_file_meta_info(unfolded, meta, enforce_standard=False)
    unfolded.write(content)
    unfolded.seek(0)
    return unfolded
