"""Flower's messages and records as a stream of bounded parts, without pickle and without one copy.

Flower cuts what it sends into objects of at most some 5 MB, each named by the SHA-256 of its bytes;
the same objects, children first and the whole last, go to the worker and to the disk.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

# Not public, but what Flower itself sends: flwr is pinned to one version.
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    validate_object_content,
)

from protocol.errors import PayloadError

__all__ = ["MAX_BYTES", "MAX_PART_BYTES", "assemble", "content_id", "parts_of"]

# The largest single part is a JSON document of protocol.documents, 8 MiB.
MAX_PART_BYTES = 16 * 2**20
MAX_BYTES = 9 * 2**30
MAX_PARTS = 1_000_000


def parts_of(thing: Message | RecordDict) -> Iterator[bytes]:
    """Yield the parts of a message or of records, each at most 16 MiB.

    Raises
    ------
    PayloadError
        If one part is larger.
    """
    objects = get_all_nested_objects(thing)
    for name in list(objects):
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
    except Exception as error:
        # Whatever Flower raises over bytes that are none of its own.
        raise PayloadError(
            "A message's parts do not make a message; both ends must run the same version."
        ) from error
    if isinstance(thing, Message):
        thing.metadata.__dict__["_message_id"] = name
    return thing


def content_id(message: Message) -> str:
    """Return the SHA-256 by which the content of a message is known, with all it holds."""
    return str(message.content.object_id) if message.has_content() else ""
