"""Records as a few parcels, for the way over the network.

Flower makes a request, and several entries in its database, for each object at each of the places
it passes, and a network has hundreds of objects, most of them a few bytes.
"""

import io
from collections.abc import Callable

from flwr.app import ConfigRecord, Message, RecordDict

from protocol.errors import PayloadError
from protocol.names import Parcel, is_packed, parcel_name
from protocol.parts import MAX_BYTES, assemble, framed, parts_in
from protocol.refusal import Refusal

__all__ = ["PIECE_BYTES", "SMALL_BYTES", "in_parcels", "opened", "pack", "unpack"]

# A piece is a request of its own, sent again as a whole when the line breaks. Flower waits 30 s for
# the answer: at 1 Mbit/s a piece takes 11 s.
PIECE_BYTES = 5 * 2**18
# What is larger goes in two pieces at least, so that a line that breaks costs half of it at most.
SMALL_BYTES = 2**19
KEY = "bytes"


def pack(records: RecordDict) -> RecordDict:
    """Return records as parcels: their framed parts, cut into pieces of 1.25 MiB at most."""
    pieces: list[bytes] = []
    rest = bytearray()
    for data in framed(records):
        rest += data
        # The last two are cut when their size is known.
        while len(rest) > 2 * PIECE_BYTES:
            pieces.append(bytes(rest[:PIECE_BYTES]))
            del rest[:PIECE_BYTES]
    half = len(rest) if len(rest) <= SMALL_BYTES else (len(rest) + 1) // 2
    pieces += [bytes(rest[:half])] + ([bytes(rest[half:])] if half < len(rest) else [])
    return RecordDict({parcel_name(i): Parcel({KEY: piece}) for i, piece in enumerate(pieces)})


def unpack(records: RecordDict, max_bytes: int = MAX_BYTES) -> RecordDict:
    """Return the records that were packed.

    Raises
    ------
    PayloadError
        If these are no parcels, or do not make records.
    """
    pieces, size = [], 0
    for i in range(len(records)):
        record = records.get(parcel_name(i))
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
