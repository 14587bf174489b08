"""The wanted elements of an ordinary DICOM file, from its first bytes.

Most files are little-endian with a header of a few kilobytes; for them one read and one walk over
tags and lengths are enough, faster than a general parser. Whatever is out of the ordinary is left
to pydicom: the answer is `None`, never a guess.
"""

import os
import struct
from collections.abc import Collection
from typing import BinaryIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

__all__ = ["Walked", "walk"]

START = 132
FIRST_BYTES, MORE_BYTES = 1 << 13, 1 << 18
IMPLICIT, EXPLICIT = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2"
SYNTAX, PIXEL_DATA = 0x00020010, 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
LONG_FORM = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN",
                       b"UR", b"UT", b"UV"})  # fmt: skip
SHORT_FORM = frozenset({b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS",
                        b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL",
                        b"US"})  # fmt: skip
_tag_and_length = struct.Struct("<HHI").unpack_from
_tag_vr_length = struct.Struct("<HH2sH").unpack_from
_long = struct.Struct("<I").unpack_from

Walked = tuple[Dataset, int]
"""The wanted elements, and where uncompressed pixels begin, or -1."""


class _Odd(ValueError):
    """The file is not of the ordinary kind."""


def walk(stream: BinaryIO, wanted: Collection[int]) -> Walked | None:
    """Collect the wanted elements of a file with preamble, up to its pixels.

    Parameters
    ----------
    stream : BinaryIO
        A real file; its position is left as it is.
    wanted : collection of int
        Tags.

    Returns
    -------
    Walked or None
        ``None`` where the file must be parsed in full.
    """
    descriptor = stream.fileno()
    for size in (FIRST_BYTES, MORE_BYTES):
        head = os.pread(descriptor, size, 0)
        try:
            return _walk(head, wanted)
        except struct.error:
            if len(head) < size:
                return None
        except _Odd:
            return None
    return None


def _walk(head: bytes, wanted: Collection[int]) -> Walked:
    at, syntax = _meta(head)
    implicit = syntax == IMPLICIT
    elements: dict[BaseTag, RawDataElement] = {}
    depth, last = 0, 0
    while True:
        tag, vr, start, length = _element(head, at, implicit)
        if depth == 0:
            if tag <= last:
                raise _Odd
            last = tag
            if tag >= PIXEL_DATA:
                break
        if tag in (ITEM_END, SEQUENCE_END):
            depth -= 1
            at = start
        elif length == UNDEFINED:
            # Elements of unknown kind hold other encodings; those wanted are read in full.
            if (depth == 0 and tag in wanted) or vr not in (b"SQ", b"", b"--"):
                raise _Odd
            depth += 1
            at = start
        else:
            at = start + length
            if depth == 0 and tag in wanted:
                if at > len(head):
                    raise struct.error
                name = None if implicit else vr.decode()
                key = BaseTag(tag)
                elements[key] = RawDataElement(
                    key, name, length, head[start:at], start, implicit, True
                )
    plain = tag == PIXEL_DATA and length != UNDEFINED and syntax in (IMPLICIT, EXPLICIT)
    return Dataset(elements), start if plain else -1


def _element(head: bytes, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
    """Return tag, VR (empty where none is written), start and length of the value at ``at``."""
    if implicit:
        group, number, length = _tag_and_length(head, at)
        return group << 16 | number, b"", at + 8, length
    group, number, vr, short = _tag_vr_length(head, at)
    if vr in SHORT_FORM:
        return group << 16 | number, vr, at + 8, short
    if vr in LONG_FORM:
        return group << 16 | number, vr, at + 12, _long(head, at + 8)[0]
    if group == 0xFFFE:
        return group << 16 | number, b"--", at + 8, _long(head, at + 4)[0]
    raise _Odd


def _meta(head: bytes) -> tuple[int, bytes]:
    """Return where the data set begins, and the transfer syntax."""
    at, syntax = START, b""
    while head[at : at + 2] == b"\x02\x00":
        tag, _, start, length = _element(head, at, implicit=False)
        at = start + length
        if tag == SYNTAX:
            syntax = head[start:at].strip(b"\0 ")
    if not syntax.startswith(IMPLICIT) or syntax in (DEFLATED, BIG_ENDIAN):
        raise _Odd
    return at, syntax
