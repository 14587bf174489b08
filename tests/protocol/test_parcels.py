"""Parcels: what comes out is what went in, or it is refused."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from protocol.errors import PayloadError
from protocol.names import is_packed
from protocol.parcels import PIECE_BYTES, SMALL_BYTES, in_parcels, opened, pack, unpack
from protocol.parts import parts_of

Make = Callable[..., RecordDict]


def test_packed_records_are_few_bounded_parcels_and_unpack_to_the_same() -> None:
    layers = {f"layer {i}": Array(np.full(30_000, i, np.float32)) for i in range(60)}
    records = RecordDict({"arrays": ArrayRecord(layers), "text": ConfigRecord({"a": "b"})})
    packed = pack(records)
    sizes = [len(record["bytes"]) for record in packed.values()]
    assert set(sizes[:-2]) == {PIECE_BYTES} and sizes[-2] - sizes[-1] in (0, 1)
    assert len(sizes) == 6 < len(list(parts_of(records)))
    assert is_packed(packed) and not is_packed(records)
    again = unpack(packed)
    assert again.object_id == records.object_id
    assert list(parts_of(again)) == list(parts_of(records))


@pytest.mark.parametrize("size", [1, SMALL_BYTES, PIECE_BYTES, 2 * PIECE_BYTES, 5 * PIECE_BYTES])
def test_what_is_not_small_goes_in_pieces_of_half_of_it_at_most(size: int) -> None:
    records = RecordDict({"a": ConfigRecord({"bytes": bytes(size)})})
    sizes = [len(record["bytes"]) for record in pack(records).values()]
    assert max(sizes) <= PIECE_BYTES
    if sum(sizes) > SMALL_BYTES:
        assert max(sizes) <= (sum(sizes) + 1) // 2
    else:
        assert len(sizes) == 1
    assert len(sizes) <= 2 + sum(sizes) // PIECE_BYTES


def test_same_records_same_parcels(some_records: Make) -> None:
    assert pack(some_records()).object_id == pack(some_records()).object_id
    assert pack(some_records()).object_id != pack(some_records(2.0)).object_id


def test_nothing_packs_to_something() -> None:
    assert len(unpack(pack(RecordDict()))) == 0


@pytest.mark.parametrize("harm", ["lost", "cut", "altered", "kind", "foreign", "more", "long"])
def test_parcels_that_are_not_whole_are_refused(harm: str, some_records: Make) -> None:
    packed = pack(some_records(size=1_500_000))
    first, last = packed["parcel-00000"], packed["parcel-00002"]
    limit = 10**9
    if harm == "lost":
        del packed["parcel-00001"]
    elif harm == "cut":
        last["bytes"] = last["bytes"][:-1]
    elif harm == "altered":
        first["bytes"] = first["bytes"][:-1] + bytes([first["bytes"][-1] ^ 1])
    elif harm == "kind":
        first["bytes"] = "text"
    elif harm == "foreign":
        first["bytes"] = b"\xff" * 16
    elif harm == "more":
        packed["other"] = ConfigRecord({"a": 1})
    else:
        limit = 1000
    with pytest.raises(PayloadError):
        unpack(packed, limit)


def test_an_answer_goes_as_the_question_came(some_records: Make) -> None:
    def answer(message: Message) -> Message:
        assert message.content.object_id == some_records().object_id
        return Message(some_records(2.0), reply_to=message)

    plain = in_parcels(Message(some_records(), 7, "query.survey"), answer)
    assert plain.content.object_id == some_records(2.0).object_id
    packed = in_parcels(Message(pack(some_records()), 7, "query.survey"), answer)
    assert unpack(packed.content).object_id == some_records(2.0).object_id


def test_a_question_that_cannot_be_unpacked_is_refused_in_a_sentence() -> None:
    broken = RecordDict({"parcel-00000": ConfigRecord({"bytes": b"\xff" * 16})})
    reply = in_parcels(Message(broken, 7, "query.survey"), lambda _: pytest.fail("it was answered"))
    assert reply.has_error() and "bytes" in reply.error.reason


def test_few_bytes_that_stand_for_many_are_refused_before_they_are_joined() -> None:
    record = ConfigRecord({"bytes": bytes(1000)})
    many = RecordDict({f"parcel-{i:05d}": record for i in range(1000)})
    with pytest.raises(PayloadError, match="more than 10000 bytes"):
        unpack(many, 10_000)


def test_opening_leaves_the_parcels_as_they_are(some_records: Make) -> None:
    message = Message(pack(some_records()), 7, "query.survey")
    inside = opened(message)
    assert inside.content.object_id == some_records().object_id
    assert inside.metadata is message.metadata
    assert is_packed(message.content)
    plain = Message(some_records(), 7, "query.survey")
    assert opened(plain) is plain
