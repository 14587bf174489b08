"""Everything that can be said between the centre and a hospital, as frozen classes.

Each message is one JSON document (a string in Flower's ``ConfigRecord``) and, where a model
travels, one ``ArrayRecord``, to which a train request may add the centre's control variate. What
these classes cannot express cannot leave a hospital.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from flwr.app import ArrayRecord, RecordDict

from protocol.arrays import Arrays
from protocol.config import Study
from protocol.documents import need
from protocol.envelope import is_count, is_rate, pack, read_study, study_text, unpack
from protocol.records import from_array_record, to_array_record
from protocol.refusal import Refusal

__all__ = [
    "MAX_MODEL_BYTES",
    "Answer",
    "Base",
    "Question",
    "Refusal",
    "TrainReply",
    "TrainRequest",
]

MAX_MODEL_BYTES = 4 * 2**30
MAX_METRICS = 256
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
METRIC_NAME = re.compile(r"[A-Za-z0-9_./-]{1,64}")
TRAIN_STAGES = ("sort", "segment", "prognosis")


class Base(NamedTuple):
    """Which model a packed one is the change of.

    Attributes
    ----------
    round_index : int
        The round in which that model was sent.
    before, after : str
        Fingerprints (`protocol.arrays.fingerprint`) of that model, and of the one it becomes.
    """

    round_index: int
    before: str
    after: str


@dataclass(frozen=True)
class TrainRequest:
    """Train this model on your patients for one round.

    Attributes
    ----------
    stage : {"sort", "segment", "prognosis"}
        Which network is trained.
    round_index : int
        Counted from 1.
    agreed : dict
        What the survey agreed (standardisation, time grid, ...), JSON values only.
    arrays : Arrays
        The global model; read-only views of the message when received. With ``base``, the one
        array ``delta`` (`protocol.compression`).
    control : Arrays or None
        SCAFFOLD's ``c``, by the names of the model; None for every other strategy.
    control_round : int
        The last round after which the centre counted the control variate of the hospital that
        is asked; 0 for none. See `protocol.addressed.with_control_round`.
    base : Base or None
        Of what the model is the packed change; None where it is whole.
    """

    study: Study
    stage: Literal["sort", "segment", "prognosis"]
    round_index: int
    agreed: dict[str, Any]
    arrays: Arrays
    control: Arrays | None = None
    control_round: int = 0
    base: Base | None = None

    def to_records(self) -> RecordDict:
        """Return the message's content; the numbers are copied once."""
        document = {
            "study": study_text(self.study),
            "stage": self.stage,
            "round_index": self.round_index,
            "agreed": self.agreed,
        }
        if self.base is not None:
            document["base"] = self.base._asdict()
        if self.control is None:
            return pack("train request", document, self.arrays)
        document["control_round"] = self.control_round
        records = pack("train request", document, self.arrays)
        records["control"] = to_array_record(self.control)
        return records

    @classmethod
    def from_records(cls, records: RecordDict, max_bytes: int = MAX_MODEL_BYTES) -> Self:
        """Read a received request.

        Raises
        ------
        PayloadError
            If keys, types, sizes or the study are not what this version sends.
        """
        where = "The centre's request"
        keys, names = ["study", "stage", "round_index", "agreed"], {"document", "arrays"}
        if "control" in records:
            keys, names = [*keys, "control_round"], {*names, "control"}
        document, record = unpack(
            records, "train request", tuple(keys), where, frozenset(names), frozenset({"base"})
        )
        stage, round_index, agreed = (document[key] for key in keys[1:4])
        need(stage in TRAIN_STAGES, where, "the stage is unknown")
        need(is_count(round_index) and round_index >= 1, where, "the round is not 1 or later")
        need(isinstance(agreed, dict), where, "the agreed values are no object")
        need(record is not None, where, "the model is missing")
        study = read_study(document["study"], where)
        arrays = from_array_record(record, where, max_bytes)
        control, control_round = None, document.get("control_round", 0)
        if "control" in records:
            good = is_count(control_round) and control_round < round_index
            need(good, where, "the control round is not an earlier one")
            control = _control(records["control"], where, max_bytes)
        base = _base(document["base"], round_index, where) if "base" in document else None
        return cls(study, stage, round_index, agreed, arrays, control, control_round, base)


def _base(value: Any, round_index: int, where: str) -> Base:
    good = isinstance(value, dict) and value.keys() == set(Base._fields)
    need(good, where, "the model's base is not described")
    base = Base(**value)
    good = is_count(base.round_index) and 1 <= base.round_index < round_index
    need(good, where, "the model's base is of no earlier round")
    prints = (base.before, base.after)
    good = all(isinstance(text, str) and FINGERPRINT.fullmatch(text) for text in prints)
    need(good, where, "the model's base has no fingerprint")
    return base


def _control(record: Any, where: str, max_bytes: int) -> Arrays:
    need(isinstance(record, ArrayRecord), where, "the control variate is no arrays")
    return from_array_record(record, f"{where}, control variate", max_bytes)


@dataclass(frozen=True)
class TrainReply:
    """A hospital's model after its local training, or the packed change of it.

    Attributes
    ----------
    arrays : Arrays
        The model; where the study compresses (`protocol.compression`) the one array ``delta``.
    num_patients, num_events : int
        How many patients (and events among them) the training used.
    metrics : dict
        Finite scalars by name, e.g. ``{"loss": 0.31}``.
    rate_sum : float or None
        Sum of the learning rates of the steps taken, > 0, from which the centre computes the
        change of the hospital's control variate; only where the request brought one.
    """

    arrays: Arrays
    num_patients: int
    num_events: int
    metrics: dict[str, float] = field(default_factory=dict)
    rate_sum: float | None = None

    def to_records(self) -> RecordDict:
        """Return the message's content.

        Raises
        ------
        PayloadError
            If a metric is not finite or the arrays cannot be sent.
        """
        document = {
            "num_patients": self.num_patients,
            "num_events": self.num_events,
            "metrics": self.metrics,
        }
        if self.rate_sum is not None:
            document["rate_sum"] = self.rate_sum
        return pack("train reply", document, self.arrays)

    @classmethod
    def from_records(
        cls,
        records: RecordDict,
        where: str,
        max_bytes: int = MAX_MODEL_BYTES,
        *,
        controlled: bool = False,
    ) -> Self:
        """Read a received reply; whether its numbers are plausible is for the caller to judge.

        Parameters
        ----------
        controlled : bool
            The request brought a control variate, so that ``rate_sum`` is expected.

        Raises
        ------
        PayloadError
            If keys, types or sizes are not what this version sends.
        """
        keys = ("num_patients", "num_events", "metrics", *(["rate_sum"] if controlled else []))
        document, record = unpack(records, "train reply", keys, where)
        num_patients, num_events, metrics = (document[key] for key in keys[:3])
        need(is_count(num_patients), where, "num_patients is not a count of 0 or more")
        need(is_count(num_events), where, "num_events is not a count of 0 or more")
        need(isinstance(metrics, dict) and len(metrics) <= MAX_METRICS, where, "bad metrics")
        for name, value in metrics.items():
            good = METRIC_NAME.fullmatch(name) and type(value) in (int, float)
            need(bool(good), where, "a metric is not a plain name with a number")
        rate_sum = document.get("rate_sum")
        good = not controlled or is_rate(rate_sum)
        need(good, where, "rate_sum is not a number above 0")
        need(record is not None, where, "the model is missing")
        arrays = from_array_record(record, where, max_bytes)
        known = {name: float(value) for name, value in metrics.items()}
        return cls(arrays, num_patients, num_events, known, rate_sum)


@dataclass(frozen=True)
class Question:
    """Tell me something that is not a model: hello, the survey, measurements, an evaluation.

    Attributes
    ----------
    topic : str
        What is asked, e.g. ``"survey"``.
    arrays : Arrays or None
        A model, where the answer needs one.
    """

    study: Study
    topic: str
    agreed: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays | None = None

    def to_records(self) -> RecordDict:
        """Return the message's content."""
        document = {
            "study": study_text(self.study),
            "topic": self.topic,
            "agreed": self.agreed,
        }
        return pack("question", document, self.arrays)

    @classmethod
    def from_records(cls, records: RecordDict, max_bytes: int = MAX_MODEL_BYTES) -> Self:
        """Read a received question.

        Raises
        ------
        PayloadError
            If keys, types, sizes or the study are not what this version sends.
        """
        where = "The centre's question"
        keys = ("study", "topic", "agreed")
        document, record = unpack(records, "question", keys, where)
        topic, agreed = document["topic"], document["agreed"]
        need(isinstance(topic, str), where, "the topic is no text")
        need(isinstance(agreed, dict), where, "the agreed values are no object")
        arrays = None if record is None else from_array_record(record, where, max_bytes)
        return cls(read_study(document["study"], where), topic, agreed, arrays)


@dataclass(frozen=True)
class Answer:
    """A hospital's answer to a question: one JSON document of counts, sums and settings."""

    document: dict[str, Any]

    def to_records(self) -> RecordDict:
        """Return the message's content.

        Raises
        ------
        PayloadError
            If the document holds a NaN or anything else JSON cannot carry.
        """
        return pack("answer", {"answer": self.document}, None)

    @classmethod
    def from_records(cls, records: RecordDict, where: str) -> Self:
        """Read a received answer.

        Raises
        ------
        PayloadError
            If it is not one JSON object, or brings arrays.
        """
        document, record = unpack(records, "answer", ("answer",), where)
        need(record is None, where, "an answer brings no arrays")
        need(isinstance(document["answer"], dict), where, "the answer is no object")
        return cls(document["answer"])
