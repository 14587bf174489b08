"""Names: by what Flower knows an object, computed as seldom as they can be and never stale."""

from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from protocol.names import content_id, frozen
from protocol.parcels import pack
from protocol.parts import assemble, parts_of

Make = Callable[..., RecordDict]


def test_frozen_parcels_are_named_once_and_by_the_same_name(
    monkeypatch: pytest.MonkeyPatch, some_records: Make
) -> None:
    packed = pack(some_records(size=1_500_000))
    plain = RecordDict({name: ConfigRecord(dict(record)) for name, record in packed.items()})
    again = frozen(plain)
    assert again.object_id == packed.object_id == plain.object_id
    assert list(parts_of(again)) == list(parts_of(plain))
    monkeypatch.setattr(ConfigRecord, "deflate", lambda record: pytest.fail("it was hashed"))
    assert again.object_id == packed.object_id
    with pytest.raises(pytest.fail.Exception):
        _ = plain.object_id
    # Others are left as they are.
    records = some_records()
    assert frozen(records) is records


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


def test_a_parcel_can_be_copied_to_another_process(some_records: Make) -> None:
    packed = pack(some_records())
    (name,) = packed
    make, arguments = packed[name].__reduce__()
    assert make(*arguments).object_id == packed[name].object_id
