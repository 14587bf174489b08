"""DICOM data elements as bytes: explicit VR, little endian (PS3.5, 7.1.2).

pydicom builds and checks an object per element, which for a thousand small images costs more than
imaging the phantom. Here tag and VR come from pydicom's dictionary and the value is written at
once; the tests read everything back with pydicom.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from pydicom.datadict import dictionary_VR, tag_for_keyword

__all__ = ["Elements", "element", "elements", "raw_element", "sequence", "to_bytes"]

#: Encoded elements with their tags, in any order.
Elements = list[tuple[int, bytes]]
Value = str | int | float | bytes | Sequence[str] | Sequence[int] | Sequence[float]

LONG_FORM = frozenset({"OB", "OW", "SQ", "UN", "UT"})
NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
ITEM = b"\xfe\xff\x00\xe0"


def _tag_bytes(tag: int) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def _content(vr: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        content = value
    elif vr == "AT":
        content = _tag_bytes(int(value))  # type: ignore[arg-type]
    elif vr in NUMBERS:
        many = value if isinstance(value, list | tuple) else (value,)
        content = struct.pack(f"<{len(many)}{NUMBERS[vr]}", *many)
    else:
        many = value if isinstance(value, list | tuple) else (value,)
        content = "\\".join(map(str, many)).encode("latin-1")
    if len(content) % 2:
        content += b"\x00" if vr in ("UI", "OB") else b" "
    return content


def raw_element(tag: int, vr: str, value: Value) -> tuple[int, bytes]:
    """Encode an element of a given tag and VR; several values as a list."""
    content = _content(vr, value)
    if vr in LONG_FORM:
        head = vr.encode() + b"\x00\x00" + struct.pack("<I", len(content))
    else:
        head = vr.encode() + struct.pack("<H", len(content))
    return tag, _tag_bytes(tag) + head + content


@cache
def _known(keyword: str) -> tuple[int, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag, dictionary_VR(tag)


def element(keyword: str, value: Value) -> tuple[int, bytes]:
    """Encode an element by its DICOM keyword."""
    return raw_element(*_known(keyword), value)


def elements(values: Mapping[str, Value]) -> Elements:
    """Encode several elements by keyword."""
    return [element(keyword, value) for keyword, value in values.items()]


def to_bytes(encoded: Iterable[tuple[int, bytes]]) -> bytes:
    """Return a data set: the elements in ascending order of their tags."""
    return b"".join(content for _, content in sorted(encoded))


def sequence(keyword: str, items: Iterable[Elements]) -> tuple[int, bytes]:
    """Encode a sequence with items of defined length."""
    packed = []
    for item in items:
        content = to_bytes(item)
        packed.append(ITEM + struct.pack("<I", len(content)) + content)
    return raw_element(_known(keyword)[0], "SQ", b"".join(packed))
