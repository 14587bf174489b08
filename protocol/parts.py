"""Flower's messages and records as a stream of bounded parts.

Flower cuts what it sends into objects of at most some 5 MB, each named by the SHA-256 of its bytes;
the same objects, children first and the whole last, go to the worker and to the disk.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Not public, but what Flower itself sends: flwr is pinned to one version.
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    validate_object_content,
)

from protocol.errors import PayloadError
from protocol.names import frozen, named, objects_of

__all__ = ["MAX_BYTES", "MAX_PART_BYTES", "assemble", "framed", "parts_in", "parts_of"]

# The largest single part is a JSON document of protocol.documents, 8 MiB.
MAX_PART_BYTES = 16 * 2**20
MAX_BYTES = 9 * 2**30
MAX_PARTS = 1_000_000
LENGTH_BYTES = 8


def parts_of(thing: Message | RecordDict) -> Iterator[bytes]:
    """Yield the parts of a message or of records, each at most 16 MiB.

    Raises
    ------
    PayloadError
        If one part is larger.
    """
    objects = objects_of(thing)
    names = set(objects)
    for name in list(objects):
        with named(names):
            part = objects.pop(name).deflate()
        if len(part) > MAX_PART_BYTES:
            raise PayloadError(
                f"A message has a part of {len(part)} bytes, more than {MAX_PART_BYTES}; send less."
            )
        yield part


def assemble(parts: Iterable[bytes], max_bytes: int = MAX_BYTES) -> Any:
    """Return the message or the records that the parts are of.

    A message carries no id of its own; it gets the one that Flower would give it.

    Raises
    ------
    PayloadError
        If the parts are too many, too large, incomplete, or no object of Flower's.
    """
    contents: dict[str, bytes] = {}
    size, name = 0, ""
    for part in parts:
        size += len(part)
        if size > max_bytes or len(contents) >= MAX_PARTS:
            raise PayloadError(f"A message has more than {max_bytes} bytes; send less.")
        name = hashlib.sha256(part).hexdigest()
        contents[name] = part
    try:
        for part in contents.values():
            validate_object_content(part)
        thing = inflate_object_from_contents(name, contents)
    except MemoryError:
        raise
    except Exception as error:
        # Whatever Flower raises over bytes that are none of its own.
        raise PayloadError(
            "A message's parts do not make a message; both ends must run the same version."
        ) from error
    if isinstance(thing, Message):
        thing.metadata.__dict__["_message_id"] = name
        if thing.has_content():
            thing.content = frozen(thing.content)
    return frozen(thing) if isinstance(thing, RecordDict) else thing


def framed(thing: Message | RecordDict) -> Iterator[bytes]:
    """Yield the bytes of a stream that holds the parts, each after its length."""
    for part in parts_of(thing):
        yield len(part).to_bytes(LENGTH_BYTES, "big")
        yield part


def parts_in(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the parts of a framed stream.

    Raises
    ------
    PayloadError
        If the stream is cut short, or a part is too long.
    """
    while header := read(LENGTH_BYTES):
        length = int.from_bytes(header, "big")
        if length > MAX_PART_BYTES:
            raise PayloadError(f"A message has a part of more than {MAX_PART_BYTES} bytes.")
        part = read(length)
        if len(header) != LENGTH_BYTES or len(part) != length:
            raise PayloadError("A message was cut short; it is not used.")
        yield part
