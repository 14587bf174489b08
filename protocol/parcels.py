"""Flower's messages and records as a stream of bounded parts, and as a few parcels of one size.

Flower cuts what it sends into objects of at most some 5 MB, each named by the SHA-256 of its bytes;
the same objects, children first and the whole last, go to the worker and to the disk. Over the
network they go packed: Flower makes a request, and several entries in its database, for each object
at each of the places it passes, and a network has hundreds of objects, most of them a few bytes.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# Not public, but what Flower itself sends: flwr is pinned to one version.
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable import inflatable_object
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    validate_object_content,
)

from protocol.errors import PayloadError
from protocol.refusal import Refusal

__all__ = [
    "MAX_BYTES",
    "MAX_PART_BYTES",
    "PIECE_BYTES",
    "assemble",
    "content_id",
    "framed",
    "frozen",
    "in_parcels",
    "is_packed",
    "opened",
    "pack",
    "parts_in",
    "parts_of",
    "unpack",
]

# The largest single part is a JSON document of protocol.documents, 8 MiB.
MAX_PART_BYTES = 16 * 2**20
MAX_BYTES = 9 * 2**30
MAX_PARTS = 1_000_000
# A piece is a request of its own, sent again as a whole when the line breaks. Flower waits 30 s for
# the answer: at 1 Mbit/s a piece takes 21 s.
PIECE_BYTES = 5 * 2**19
LENGTH_BYTES = 8
PREFIX, KEY = "parcel-", "bytes"


def _objects_of(thing: Message | RecordDict) -> dict[str, Any]:
    _forget_names(thing)
    with no_object_id_recompute():
        return get_all_nested_objects(thing)


def _forget_names(thing: Message | RecordDict) -> None:
    """Drop the names of what may have been altered since it was named last."""
    named: list[Any] = [thing]
    if isinstance(thing, Message) and thing.has_content():
        named.append(thing.content)
    if isinstance(named[-1], RecordDict):
        named += named[-1].values()
    for each in named:
        if not isinstance(each, _Parcel):
            each.__dict__.pop("_object_id", None)


@contextmanager
def _named(names: set[str]) -> Iterator[None]:
    """Let what bears one of these names keep it: Flower hashes an object whenever it is named."""
    with no_object_id_recompute():
        inflatable_object._ctx.computed_object_ids = names
        yield


def parts_of(thing: Message | RecordDict) -> Iterator[bytes]:
    """Yield the parts of a message or of records, each at most 16 MiB.

    Raises
    ------
    PayloadError
        If one part is larger.
    """
    objects = _objects_of(thing)
    names = set(objects)
    for name in list(objects):
        with _named(names):
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


def content_id(message: Message) -> str:
    """Return the SHA-256 by which the content of a message is known, with all it holds."""
    if not message.has_content():
        return ""
    _forget_names(message)
    with no_object_id_recompute():
        return str(message.content.object_id)


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


def pack(records: RecordDict) -> RecordDict:
    """Return records as parcels: their framed parts, cut into pieces of 2.5 MiB."""
    pieces: list[bytes] = []
    rest = bytearray()
    for data in framed(records):
        rest += data
        while len(rest) >= PIECE_BYTES:
            pieces.append(bytes(rest[:PIECE_BYTES]))
            del rest[:PIECE_BYTES]
    pieces.append(bytes(rest))
    return RecordDict({_name(i): _Parcel({KEY: piece}) for i, piece in enumerate(pieces)})


def frozen(records: RecordDict) -> RecordDict:
    """Return parcels whose names are computed once; what are no parcels, as they are."""
    if not is_packed(records):
        return records
    # Equal parcels are one object, which is named, and so hashed, once.
    made: dict[int, Any] = {}
    for record in records.values():
        if id(record) not in made:
            plain = not isinstance(record, ConfigRecord)
            made[id(record)] = record if plain else _Parcel(dict(record))
    return RecordDict({name: made[id(record)] for name, record in records.items()})


class _Parcel(ConfigRecord):
    """One that nobody alters: Flower hashes a record anew whenever it asks for its name."""

    @property
    def is_dirty(self) -> bool:
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        # Its class goes by another's name, and could not be found again.
        return ConfigRecord, (dict(self),)


# Flower writes the name of the class before the bytes, and makes from them what the name says.
_Parcel.__qualname__ = ConfigRecord.__qualname__


def is_packed(records: RecordDict) -> bool:
    """Say whether records are parcels."""
    return _name(0) in records


def unpack(records: RecordDict, max_bytes: int = MAX_BYTES) -> RecordDict:
    """Return the records that were packed.

    Raises
    ------
    PayloadError
        If these are no parcels, or do not make records.
    """
    pieces, size = [], 0
    for i in range(len(records)):
        record = records.get(_name(i))
        piece = record.get(KEY) if isinstance(record, ConfigRecord) else None
        if not isinstance(piece, bytes):
            raise PayloadError("A message's parcels are not complete; it is not used.")
        # Before they are joined: equal pieces travel once, so few bytes can stand for many.
        size += len(piece)
        if size > max_bytes:
            raise PayloadError(f"A message has more than {max_bytes} bytes; send less.")
        pieces.append(piece)
    found = assemble(parts_in(io.BytesIO(b"".join(pieces)).read), max_bytes)
    if not isinstance(found, RecordDict):
        raise PayloadError("A message's parcels hold no records; it is not used.")
    return found


def in_parcels(message: Message, answer: Callable[[Message], Message]) -> Message:
    """Return the answer to a message, which goes packed if the message came packed."""
    if not (message.has_content() and is_packed(message.content)):
        return answer(message)
    try:
        # In the same message, so that the parcels are not held as well while it is answered.
        message.content = unpack(message.content)
    except PayloadError as error:
        return Message(Refusal.of(error).to_error(), reply_to=message)
    reply = answer(message)
    if reply.has_content():
        reply.content = pack(reply.content)
    return reply


def opened(message: Message) -> Message:
    """Return the message; if it came packed, another one with the records that were packed.

    Raises
    ------
    PayloadError
        As `unpack`.
    """
    if not (message.has_content() and is_packed(message.content)):
        return message
    return Message(content=unpack(message.content), metadata=message.metadata)


def _name(index: int) -> str:
    return f"{PREFIX}{index:05d}"
