"""What both ends write down of a message: the same at both, and never part of what it says."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from protocol.addressed import with_control_round
from protocol.arrays import fingerprint
from protocol.audit import START, Head
from protocol.config import Study
from protocol.custody import Heads, attach_heads, carried, heads_in, subject
from protocol.documents import digest
from protocol.errors import PayloadError
from protocol.payload import Answer, Question, TrainReply, TrainRequest

HEADS = Heads(Head(7, "a" * 64), Head(2, "b" * 64), (0.5, 1e-5))
STUDY = Study.model_validate({"name": "s", "seed": 1, "hospitals": {"train": ["a", "b"]}})


def model() -> dict[str, np.ndarray]:
    return {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3, np.int64)}


@pytest.mark.parametrize("heads", [HEADS, Heads(Head(0, START), None), HEADS._replace(spent=None)])
def test_heads_travel_beside_what_a_reply_says(heads: Heads) -> None:
    records = Answer({"patients": 12}).to_records()
    before = carried(records)
    attach_heads(records, heads)
    assert heads_in(records, "The reply") == heads
    assert Answer.from_records(records, "The reply").document == {"patients": 12}
    # No byte that is compared or hashed knows of them.
    assert carried(records) == before


def test_a_model_with_heads_is_the_same_model() -> None:
    records = TrainReply(model(), 10, 2, {"loss": 0.5}).to_records()
    attach_heads(records, HEADS)
    reply = TrainReply.from_records(records, "The reply")
    assert fingerprint(reply.arrays) == fingerprint(model()) == carried(records)["arrays"]


def test_a_reply_without_heads_has_none() -> None:
    assert heads_in(Answer({}).to_records(), "The reply") is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"log":[1,"a"],"ledger":null,"spent":null}',
        '{"log":[-1,"' + "a" * 64 + '"],"ledger":null,"spent":null}',
        '{"log":[true,"' + "a" * 64 + '"],"ledger":null,"spent":null}',
        '{"log":[1,"' + "A" * 64 + '"],"ledger":null,"spent":null}',
        '{"log":[1,"' + "a" * 64 + '"],"ledger":null,"spent":[1]}',
        '{"log":[1,"' + "a" * 64 + '"],"ledger":null,"spent":[-1,0.1]}',
        '{"log":[1,"' + "a" * 64 + '"],"ledger":7,"spent":null}',
        "no json",
        "x" * 2000,
    ],
)
def test_heads_that_are_none_are_refused(text: str) -> None:
    records = Answer({}).to_records()
    document = records["document"]
    assert isinstance(document, ConfigRecord)
    document["heads"] = text
    with pytest.raises(PayloadError):
        heads_in(records, "The reply")


def test_anything_else_beside_the_document_is_still_refused() -> None:
    records = Answer({}).to_records()
    document = records["document"]
    assert isinstance(document, ConfigRecord)
    document["tails"] = "x"
    with pytest.raises(PayloadError, match="unknown records"):
        Answer.from_records(records, "The reply")


def test_a_request_is_known_by_all_it_carries() -> None:
    request = TrainRequest(STUDY, "segment", 3, {"cuts": [1.0]}, model(), control=model())
    records = request.to_records()
    hashes = carried(records)
    assert set(hashes) == {"document", "arrays", "control"}
    about = subject("train.segment", records, hashes)
    study = digest(STUDY.model_dump(mode="json", by_alias=True))
    assert about | {"request": ""} == {
        "type": "train.segment",
        "request": "",
        "study": "s",
        "study_hash": study,
        "stage": "segment",
        "round": 3,
    }
    other = with_control_round(records, 2)
    assert subject("train.segment", other, carried(other))["request"] != about["request"]
    assert subject("train.sort", records, hashes)["request"] != about["request"]


def test_messages_that_share_arrays_are_weighed_once() -> None:
    records = TrainRequest(STUDY, "segment", 3, {}, model(), control=model()).to_records()
    known: dict[int, str] = {}
    first = carried(records, known)
    assert len(known) == 2
    known.update(dict.fromkeys(known, "seen"))
    assert carried(with_control_round(records, 1), known)["arrays"] == "seen"
    assert first["arrays"] == fingerprint(model())


def test_what_is_no_message_of_ours_is_still_written_down() -> None:
    hashes = carried(RecordDict())
    assert set(subject("query.x", RecordDict(), hashes)) == {"type", "request"}
    strange = RecordDict({"document": ConfigRecord({"json": '{"study": 3, "round_index": "x"}'})})
    assert set(subject("query.x", strange, carried(strange))) == {"type", "request"}
    records = Question(STUDY, "survey").to_records()
    records["arrays"] = TrainReply(model(), 1, 0).to_records()["arrays"]
    next(iter(records["arrays"].values())).data = b"broken"  # type: ignore[union-attr]
    assert carried(records)["arrays"] == "unreadable"
