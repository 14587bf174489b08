"""The four messages: exact round trips and strict doors."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from protocol.addressed import with_control_round
from protocol.config import Study
from protocol.errors import PayloadError
from protocol.payload import Answer, Question, TrainReply, TrainRequest

ARRAYS = {"w": np.arange(4, dtype=np.float32)}


@pytest.fixture
def study() -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "seed": 3,
            "hospitals": {"train": ["A", "B"], "external": ["C"]},
            "segment": {"network": {"name": "unet", "options": {"channels": [16, 32]}}},
            "validate": {"bootstrap": 10},
        }
    )


def with_text(text: str) -> RecordDict:
    return RecordDict({"document": ConfigRecord({"json": text})})


def test_a_request_comes_back_as_it_was(study: Study) -> None:
    agreed = {"cuts": [0.1, 12.0], "mean": {"age": 61.5}}
    sent = TrainRequest(study, "segment", 2, agreed, ARRAYS)
    back = TrainRequest.from_records(sent.to_records())
    assert (back.study, back.stage, back.round_index, back.agreed) == (study, "segment", 2, agreed)
    np.testing.assert_array_equal(back.arrays["w"], ARRAYS["w"])


def test_a_reply_comes_back_as_it_was() -> None:
    sent = TrainReply(ARRAYS, 7, 2, {"loss": 0.1})
    back = TrainReply.from_records(sent.to_records(), "A")
    assert (back.num_patients, back.num_events, back.metrics) == (7, 2, {"loss": 0.1})


def test_a_request_with_a_control_variate_comes_back_as_it_was_for_each_hospital(
    study: Study,
) -> None:
    control = {"w": np.arange(4, dtype=np.float32) / 8}
    records = TrainRequest(study, "segment", 5, {}, ARRAYS, control).to_records()
    addressed = with_control_round(records, 3)
    assert addressed["arrays"] is records["arrays"]
    for sent, expected in ((records, 0), (addressed, 3)):
        back = TrainRequest.from_records(sent)
        assert back.control is not None and back.control_round == expected
        np.testing.assert_array_equal(back.control["w"], control["w"])
    plain = TrainRequest(study, "segment", 5, {}, ARRAYS).to_records()
    assert set(plain) == {"document", "arrays"} and "control" not in str(plain["document"]["json"])
    assert TrainRequest.from_records(plain).control is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"control_round":0', '"control_round":5'),
        ('"control_round":0', '"control_round":-1'),
        ('"control_round":0', '"control_round":true'),
        ('"control_round":0,', ""),
    ],
)
def test_a_request_of_no_earlier_control_round_is_refused(study: Study, old: str, new: str) -> None:
    records = TrainRequest(study, "segment", 5, {}, ARRAYS, ARRAYS).to_records()
    text = str(records["document"]["json"])
    assert old in text
    records["document"] = ConfigRecord({"json": text.replace(old, new)})
    with pytest.raises(PayloadError, match="The centre's request"):
        TrainRequest.from_records(records)


def test_a_control_variate_is_arrays_and_belongs_to_train_requests(study: Study) -> None:
    records = TrainRequest(study, "segment", 5, {}, ARRAYS, ARRAYS).to_records()
    records["control"] = ConfigRecord({"w": 1})
    with pytest.raises(PayloadError, match="the control variate is no arrays"):
        TrainRequest.from_records(records)
    question = Question(study, "survey", {}, ARRAYS).to_records()
    question["control"] = question["arrays"]
    with pytest.raises(PayloadError, match="unknown records"):
        Question.from_records(question)


def test_the_sum_of_the_rates_travels_only_where_it_was_asked_for() -> None:
    sent = TrainReply(ARRAYS, 7, 2, rate_sum=0.125).to_records()
    assert TrainReply.from_records(sent, "A", controlled=True).rate_sum == 0.125
    with pytest.raises(PayloadError, match="has 1 unknown key"):
        TrainReply.from_records(sent, "A")
    with pytest.raises(PayloadError, match="lacks rate_sum"):
        TrainReply.from_records(TrainReply(ARRAYS, 7, 2).to_records(), "A", controlled=True)


@pytest.mark.parametrize("arrays", [None, ARRAYS])
def test_a_question_comes_back_as_it_was(
    study: Study, arrays: dict[str, np.ndarray] | None
) -> None:
    back = Question.from_records(Question(study, "survey", {"x": 1}, arrays).to_records())
    assert (back.study, back.topic, back.agreed) == (study, "survey", {"x": 1})
    assert (back.arrays is None) == (arrays is None)


def test_an_answer_comes_back_as_it_was() -> None:
    document = {"site": "A", "counts": [1, 2, None]}
    assert Answer.from_records(Answer(document).to_records(), "A").document == document


def test_a_metric_that_is_nan_is_never_sent() -> None:
    with pytest.raises(PayloadError, match=r"^The document of a train reply holds a value"):
        TrainReply(ARRAYS, 7, 2, {"loss": float("nan")}).to_records()


def test_one_kind_of_message_is_not_another(study: Study) -> None:
    question = Question(study, "survey", {}, ARRAYS).to_records()
    with pytest.raises(PayloadError, match="The reply of A"):
        TrainReply.from_records(question, "The reply of A")
    with pytest.raises(PayloadError, match="The centre's request"):
        TrainRequest.from_records(question)
    with pytest.raises(PayloadError, match="The centre's question"):
        Question.from_records(Answer({}).to_records())


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"document": MetricRecord({"json": 1})}),
        RecordDict({"document": ConfigRecord({"json": 1})}),
        RecordDict({"document": ConfigRecord({"json": b"{}"})}),
        RecordDict({"document": ConfigRecord({"json": "{}", "more": 1})}),
        RecordDict({"document": ConfigRecord({"json": "{}"}), "x": MetricRecord({"a": 1})}),
        RecordDict({"document": ConfigRecord({"json": "{}"}), "arrays": ConfigRecord({"a": 1})}),
        with_text("{}"),
        with_text("nothing"),
        with_text('{"kind":"answer","answer":[1]}'),
        with_text('{"kind":"answer","answer":{"x":NaN}}'),
        with_text('{"kind":"answer","answer":{},"more":1}'),
        with_text('{"kind":["answer"],"answer":{}}'),
    ],
)
def test_an_answer_with_anything_else_is_refused(records: RecordDict) -> None:
    with pytest.raises(PayloadError, match=r"^The answer of A"):
        Answer.from_records(records, "The answer of A")


def test_an_answer_brings_no_arrays() -> None:
    records = Answer({}).to_records()
    records["arrays"] = TrainReply(ARRAYS, 1, 0).to_records()["arrays"]
    with pytest.raises(PayloadError, match="an answer brings no arrays"):
        Answer.from_records(records, "The answer of A")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_patients", "-1"),
        ("num_patients", "1.5"),
        ("num_patients", "true"),
        ("num_patients", '"7"'),
        ("num_events", "null"),
        ("metrics", "[]"),
        ("metrics", '{"bad name":1}'),
        ("metrics", '{"loss":"0.1"}'),
        ("metrics", '{"loss":true}'),
    ],
)
def test_a_reply_with_a_wrong_type_is_refused(field: str, value: str) -> None:
    good = {"num_patients": "7", "num_events": "2", "metrics": "{}"} | {field: value}
    text = ",".join(f'"{key}":{item}' for key, item in good.items())
    records = TrainReply(ARRAYS, 7, 2).to_records()
    records["document"] = ConfigRecord({"json": f'{{"kind":"train reply",{text}}}'})
    with pytest.raises(PayloadError, match=r"^The reply of A: "):
        TrainReply.from_records(records, "The reply of A")


def test_a_request_with_an_unknown_study_key_is_refused(study: Study) -> None:
    records = TrainRequest(study, "segment", 1, {}, ARRAYS).to_records()
    text = str(records["document"]["json"]).replace(r"\"seed\":3", r"\"seed\":3,\"colour\":1")
    records["document"] = ConfigRecord({"json": text})
    with pytest.raises(PayloadError, match="unknown key 'colour'"):
        TrainRequest.from_records(records)


def test_a_request_without_a_model_is_refused(study: Study) -> None:
    records = TrainRequest(study, "segment", 1, {}, ARRAYS).to_records()
    del records["arrays"]
    with pytest.raises(PayloadError, match="the model is missing"):
        TrainRequest.from_records(records)
