"""Messages of a secure sum: what cannot be meant is refused by one sentence, before it is used."""

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from protocol.errors import PayloadError
from protocol.records import to_array_record
from protocol.secure import Advert, MaskedReply, Opening, RoundCall, SessionCall

CALL = SessionCall("0" * 32, "train.prognosis", 2, ("a", "b", "c"), 3)
ADVERT = Advert("a", b"\x01" * 32, b"\x02" * 32, b"\x03" * 64)
ROUND = RoundCall(CALL, "f" * 32, (ADVERT,) * 3, 90.0, None)
OPENING = Opening("0" * 32, "f" * 32, ("a", "b"), ("c",), {"a": b"\x05" * 30})
REPLY = MaskedReply(
    np.array([1, 2**32 - 1, 7], np.uint32), {"a": b"\x09" * 44}, {"": "ab" * 32, "b": "cd" * 32}
)


def test_what_is_written_is_read() -> None:
    for value, kind in (
        (CALL, SessionCall),
        (ADVERT, Advert),
        (ROUND, RoundCall),
        (OPENING, Opening),
    ):
        text = json.dumps(value.to_dict())
        assert kind.from_dict(json.loads(text), "test") == value
    read = MaskedReply.from_records(REPLY.to_records(), "test", 3, 32)
    assert np.array_equal(read.words, REPLY.words) and read.words.dtype == np.uint32
    assert (read.deposits, read.commitments) == (REPLY.deposits, REPLY.commitments)
    wide = MaskedReply(np.array([2**63 + 5], np.uint64), {}, {})
    assert MaskedReply.from_records(wide.to_records(), "test", 1, 64).words[0] == 2**63 + 5


@pytest.mark.parametrize(
    ("kind", "base", "change"),
    [
        (SessionCall, CALL, {"session": "../../etc/passwd"}),
        (SessionCall, CALL, {"session": "A" * 32}),
        (SessionCall, CALL, {"purpose": "train prognosis"}),
        (SessionCall, CALL, {"first_round": True}),
        (SessionCall, CALL, {"threshold": "3"}),
        (SessionCall, CALL, {"cohort": ["a", "b/c"]}),
        (SessionCall, CALL, {"cohort": "abc"}),
        (SessionCall, CALL, {"cohort": ["a"] * 201}),
        (SessionCall, CALL, {"more": 1}),
        (Advert, ADVERT, {"agreement": "00"}),
        (Advert, ADVERT, {"signature": 7}),
        (Advert, ADVERT, {"site": ""}),
        (RoundCall, ROUND, {"round_id": None}),
        (RoundCall, ROUND, {"adverts": {}}),
        (RoundCall, ROUND, {"weight_cap": 0}),
        (RoundCall, ROUND, {"weight_cap": None}),
        (RoundCall, ROUND, {"clip_norm": -1.0}),
        (RoundCall, ROUND, {"call": None}),
        (Opening, OPENING, {"deposits": {"a": "zz"}}),
        (Opening, OPENING, {"deposits": {"a b": "00"}}),
        (Opening, OPENING, {"active": [1]}),
    ],
)
def test_a_malformed_message_is_refused(kind: Any, base: Any, change: dict[str, Any]) -> None:
    with pytest.raises(PayloadError, match="both ends must run the same version"):
        kind.from_dict(base.to_dict() | change, "test")
    with pytest.raises(PayloadError):
        kind.from_dict(None, "test")


def test_a_masked_reply_of_another_size_kind_or_shape_is_refused() -> None:
    good = REPLY.to_records()
    for size, bits in ((4, 32), (2, 32), (3, 64)):
        with pytest.raises(PayloadError, match=f"not {size} words of {bits} bit"):
            MaskedReply.from_records(good, "test", size, bits)
    other = {
        "arrays": to_array_record({"masked": np.zeros((3, 1), np.int32)}),
        "document": ConfigRecord({"json": '{"kind":"train reply"}'}),
    }
    for name, record in other.items():
        with pytest.raises(PayloadError):
            MaskedReply.from_records(RecordDict({**good, name: record}), "test", 3, 32)
    for missing in ("arrays", "document"):
        rest = RecordDict({name: record for name, record in good.items() if name != missing})
        with pytest.raises(PayloadError, match="no masked reply"):
            MaskedReply.from_records(rest, "test", 3, 32)
    with pytest.raises(PayloadError, match="exceed the limit"):
        huge = RecordDict(
            {**good, "arrays": to_array_record({"masked": np.zeros(10**5, np.int32)})}
        )
        MaskedReply.from_records(huge, "test", 3, 32)
    assert isinstance(good["arrays"], ArrayRecord)


def test_shares_are_read_as_what_they_are() -> None:
    shares = {"a": {"": "0" * 32, "c": "f" * 32}}
    assert Opening.shares_from(shares, "test") == shares
    for wrong in ({"a": {"": "0" * 31}}, {"a": "x"}, {"a b": {}}, [], {"a": {"": 5}}):
        with pytest.raises(PayloadError):
            Opening.shares_from(wrong, "test")
