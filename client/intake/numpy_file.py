"""An ``.npz`` archive as arrays: never a pickle, and no array larger than its file can hold."""

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from client.intake.headers import UNREADABLE
from protocol.errors import DataError

__all__ = ["open_npz"]

MAX_FILE_BYTES = 1 << 30
MAX_MEMBER_BYTES = 1 << 30
MAX_MEMBERS = 64
MAX_UNFOLDING, ALWAYS_BYTES = 200, 64 << 20
KINDS = "biuf"


def open_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return those of the named arrays that the archive holds.

    Raises
    ------
    DataError
        If it is damaged, a link, larger than bounds, or an array is not of numbers.
    """
    try:
        if path.is_symlink():
            raise DataError("numpy archive is a symbolic link")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError("numpy archive is larger than 1 GiB")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if len(members) > MAX_MEMBERS:
                raise DataError("numpy archive with more than 64 members")
            return {
                name: _array(archive, members[f"{name}.npy"])
                for name in names
                if f"{name}.npy" in members
            }
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error) as error:
        raise DataError("numpy archive is damaged") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    allowed = max(ALWAYS_BYTES, MAX_UNFOLDING * member.compress_size)
    if member.file_size > min(MAX_MEMBER_BYTES, allowed):
        raise DataError("numpy archive unfolds to an implausible size")
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream)
        if dtype.kind not in KINDS:
            raise DataError("numpy archive with an array that is not of numbers")
        size = math.prod(shape) * dtype.itemsize
        # The header may promise what the archive does not hold; nothing is allocated on its word.
        if min(shape, default=0) < 0 or size > member.file_size:
            raise DataError("numpy archive is damaged")
        data = stream.read(size)
    if len(data) != size:
        raise DataError("numpy archive is damaged")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
