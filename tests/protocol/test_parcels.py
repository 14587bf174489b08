"""Parts and parcels: what comes out is what went in, or it is refused."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from protocol.errors import PayloadError
from protocol.parcels import (
    PIECE_BYTES,
    assemble,
    content_id,
    frozen,
    in_parcels,
    is_packed,
    opened,
    pack,
    parts_of,
    unpack,
)


def _records(value: float = 1.0, size: int = 1000) -> RecordDict:
    arrays = ArrayRecord({"w": Array(np.full(size, value, np.float32))})
    return RecordDict({"document": ConfigRecord({"json": "{}"}), "arrays": arrays})


@pytest.fixture(autouse=True)
def _task() -> None:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


def test_message_passes_as_parts_and_keeps_its_id() -> None:
    message = Message(_records(size=3_000_000), 7, "train.segment")
    message.metadata.__dict__["_message_id"] = message.object_id
    parts = list(parts_of(message))
    assert len(parts) > 4  # three chunks of the array among them
    again = assemble(parts)
    assert again.metadata.message_id == message.metadata.message_id
    assert again.content.object_id == message.content.object_id


@pytest.mark.parametrize("harm", ["missing", "altered", "foreign", "none", "long"])
def test_parts_that_make_no_message_are_refused(harm: str) -> None:
    parts = list(parts_of(_records()))
    limit = 10**6
    if harm == "missing":
        parts = parts[1:]
    elif harm == "altered":
        parts[0] = parts[0][:-1] + bytes([parts[0][-1] ^ 1])
    elif harm == "foreign":
        parts[-1] = b"os.system('true')"
    elif harm == "none":
        parts = []
    else:
        limit = 100
    with pytest.raises(PayloadError):
        assemble(parts, limit)


def test_packed_records_are_few_bounded_parcels_and_unpack_to_the_same() -> None:
    layers = {f"layer {i}": Array(np.full(30_000, i, np.float32)) for i in range(60)}
    records = RecordDict({"arrays": ArrayRecord(layers), "text": ConfigRecord({"a": "b"})})
    packed = pack(records)
    sizes = [len(record["bytes"]) for record in packed.values()]
    assert sizes[:-1] == [PIECE_BYTES] * (len(sizes) - 1) and sizes[-1] <= PIECE_BYTES
    assert len(sizes) == 3 < len(list(parts_of(records)))
    assert is_packed(packed) and not is_packed(records)
    again = unpack(packed)
    assert again.object_id == records.object_id
    assert list(parts_of(again)) == list(parts_of(records))


def test_same_records_same_parcels() -> None:
    assert pack(_records()).object_id == pack(_records()).object_id
    assert pack(_records()).object_id != pack(_records(2.0)).object_id


def test_nothing_packs_to_something() -> None:
    assert len(unpack(pack(RecordDict()))) == 0


@pytest.mark.parametrize("harm", ["lost", "cut", "altered", "kind", "foreign", "more", "long"])
def test_parcels_that_are_not_whole_are_refused(harm: str) -> None:
    packed = pack(_records(size=1_500_000))
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


def test_an_answer_goes_as_the_question_came() -> None:
    def answer(message: Message) -> Message:
        assert message.content.object_id == _records().object_id
        return Message(_records(2.0), reply_to=message)

    plain = in_parcels(Message(_records(), 7, "query.survey"), answer)
    assert plain.content.object_id == _records(2.0).object_id
    packed = in_parcels(Message(pack(_records()), 7, "query.survey"), answer)
    assert unpack(packed.content).object_id == _records(2.0).object_id


def test_a_question_that_cannot_be_unpacked_is_refused_in_a_sentence() -> None:
    broken = RecordDict({"parcel-00000": ConfigRecord({"bytes": b"\xff" * 16})})
    reply = in_parcels(Message(broken, 7, "query.survey"), lambda _: pytest.fail("it was answered"))
    assert reply.has_error() and "bytes" in reply.error.reason


def test_few_bytes_that_stand_for_many_are_refused_before_they_are_joined() -> None:
    record = ConfigRecord({"bytes": bytes(1000)})
    many = RecordDict({f"parcel-{i:05d}": record for i in range(1000)})
    with pytest.raises(PayloadError, match="more than 10000 bytes"):
        unpack(many, 10_000)


def test_frozen_parcels_are_named_once_and_by_the_same_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = pack(_records(size=1_500_000))
    plain = RecordDict({name: ConfigRecord(dict(record)) for name, record in packed.items()})
    again = frozen(plain)
    assert again.object_id == packed.object_id == plain.object_id
    assert list(parts_of(again)) == list(parts_of(plain))
    monkeypatch.setattr(ConfigRecord, "deflate", lambda record: pytest.fail("it was hashed"))
    assert again.object_id == packed.object_id
    with pytest.raises(pytest.fail.Exception):
        _ = plain.object_id
    # Others are left as they are.
    records = _records()
    assert frozen(records) is records


def test_opening_leaves_the_parcels_as_they_are() -> None:
    message = Message(pack(_records()), 7, "query.survey")
    inside = opened(message)
    assert inside.content.object_id == _records().object_id
    assert inside.metadata is message.metadata
    assert is_packed(message.content)
    plain = Message(_records(), 7, "query.survey")
    assert opened(plain) is plain


def test_what_was_altered_after_it_was_named_is_named_anew() -> None:
    altered = ConfigRecord({"v": 1})
    assert RecordDict({"a": altered}).object_id
    altered["v"] = 2
    records = RecordDict({"b": ConfigRecord({"v": 1}), "a": altered})
    again = assemble(parts_of(records))
    assert dict(again["a"]) == {"v": 2} and dict(again["b"]) == {"v": 1}
    message = Message(records, 7, "query.survey")
    assert content_id(message) == again.object_id


def test_equal_parcels_stay_one_object() -> None:
    piece = ConfigRecord({"bytes": b"x" * 1000})
    many = frozen(RecordDict({f"parcel-{i:05d}": piece for i in range(50)}))
    assert len({id(record) for record in many.values()}) == 1


def test_a_parcel_can_be_copied_to_another_process() -> None:
    packed = pack(_records())
    (name,) = packed
    make, arguments = packed[name].__reduce__()
    assert make(*arguments).object_id == packed[name].object_id


def test_too_little_memory_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    parts = list(parts_of(_records()))
    monkeypatch.setattr("protocol.parcels.inflate_object_from_contents", none_left)
    with pytest.raises(MemoryError):
        assemble(parts)
