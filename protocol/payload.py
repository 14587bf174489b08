"""Everything that can be said between the centre and a hospital, as frozen classes.

Each message is one JSON document (a string in Flower's ``ConfigRecord``) and, where a model
travels, one ``ArrayRecord``, to which a train request may add the centre's control variate. What
these classes cannot express cannot leave a hospital.
"""

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from protocol.arrays import Arrays
from protocol.config import Study
from protocol.documents import check_keys, decode, encode
from protocol.errors import ConfigError, PayloadError
from protocol.records import from_array_record, to_array_record
from protocol.refusal import Refusal
from protocol.yaml_files import parse

__all__ = [
    "MAX_MODEL_BYTES",
    "Answer",
    "Base",
    "Question",
    "Refusal",
    "TrainReply",
    "TrainRequest",
    "with_control_round",
    "with_secure",
]

MAX_MODEL_BYTES = 4 * 2**30
MAX_METRICS = 256
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
METRIC_NAME = re.compile(r"[A-Za-z0-9_./-]{1,64}")
TRAIN_STAGES = ("sort", "segment", "prognosis")


def _pack(kind: str, document: dict[str, Any], arrays: Arrays | None) -> RecordDict:
    text = encode(document | {"kind": kind}, f"The document of a {kind}")
    records = RecordDict({"document": ConfigRecord({"json": text})})
    if arrays is not None:
        records["arrays"] = to_array_record(arrays)
    return records


def _unpack(
    records: RecordDict,
    kind: str,
    keys: tuple[str, ...],
    where: str,
    names: frozenset[str] = frozenset({"document", "arrays"}),
    optional: frozenset[str] = frozenset(),
) -> tuple[dict[str, Any], ArrayRecord | None]:
    """Return the checked document of a message and its still encoded arrays, if any."""
    where = f"{where} ({kind})"
    config, arrays = records.get("document"), records.get("arrays")
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord | None):
        raise PayloadError(f"{where} has no document; both ends must run the same version.")
    # The heads of the hospital's logs stand beside the document (`protocol.custody`).
    if not records.keys() <= names or set(config) - {"heads"} != {"json"}:
        raise PayloadError(f"{where} has unknown records; both ends must run the same version.")
    text = config["json"]
    if not isinstance(text, str):
        raise PayloadError(f"{where} has no JSON text; both ends must run the same version.")
    document = decode(text, where)
    check_keys(document, frozenset((*keys, "kind")) | (optional & document.keys()), where)
    if document["kind"] != kind:
        raise PayloadError(f"{where} is of another kind; both ends must run the same version.")
    return document, arrays


def _need(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise PayloadError(f"{where}: {problem}; both ends must run the same version.")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_rate(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _study_text(study: Study) -> str:
    return encode(study.model_dump(mode="json", by_alias=True), "The study")


@lru_cache(maxsize=8)
def _parsed(text: str, where: str) -> Study:
    return parse(Study, decode(text, where), where)


def _study(text: Any, where: str) -> Study:
    """Return the checked study; hospitals that share a process share the (frozen) result.

    The study travels as a text within the document, so that it is known again without reading it.
    """
    _need(isinstance(text, str), where, "the study is no text")
    try:
        return _parsed(text, where)
    except ConfigError as error:
        raise PayloadError(error.sentence) from error


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
        is asked; 0 for none. See `with_control_round`.
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
            "study": _study_text(self.study),
            "stage": self.stage,
            "round_index": self.round_index,
            "agreed": self.agreed,
        }
        if self.base is not None:
            document["base"] = self.base._asdict()
        if self.control is None:
            return _pack("train request", document, self.arrays)
        document["control_round"] = self.control_round
        records = _pack("train request", document, self.arrays)
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
        document, record = _unpack(
            records, "train request", tuple(keys), where, frozenset(names), frozenset({"base"})
        )
        stage, round_index, agreed = (document[key] for key in keys[1:4])
        _need(stage in TRAIN_STAGES, where, "the stage is unknown")
        _need(_is_count(round_index) and round_index >= 1, where, "the round is not 1 or later")
        _need(isinstance(agreed, dict), where, "the agreed values are no object")
        _need(record is not None, where, "the model is missing")
        study = _study(document["study"], where)
        arrays = from_array_record(record, where, max_bytes)
        control, control_round = None, document.get("control_round", 0)
        if "control" in records:
            good = _is_count(control_round) and control_round < round_index
            _need(good, where, "the control round is not an earlier one")
            control = _control(records["control"], where, max_bytes)
        base = _base(document["base"], round_index, where) if "base" in document else None
        return cls(study, stage, round_index, agreed, arrays, control, control_round, base)


def _base(value: Any, round_index: int, where: str) -> Base:
    good = isinstance(value, dict) and value.keys() == set(Base._fields)
    _need(good, where, "the model's base is not described")
    base = Base(**value)
    good = _is_count(base.round_index) and 1 <= base.round_index < round_index
    _need(good, where, "the model's base is of no earlier round")
    prints = (base.before, base.after)
    good = all(isinstance(text, str) and FINGERPRINT.fullmatch(text) for text in prints)
    _need(good, where, "the model's base has no fingerprint")
    return base


def _control(record: Any, where: str, max_bytes: int) -> Arrays:
    _need(isinstance(record, ArrayRecord), where, "the control variate is no arrays")
    return from_array_record(record, f"{where}, control variate", max_bytes)


def with_control_round(records: RecordDict, control_round: int) -> RecordDict:
    """Return a train request to another hospital: the same arrays, uncopied, and its own round.

    Parameters
    ----------
    records : RecordDict
        The content of a train request that carries a control variate.
    """
    document = decode(str(records["document"]["json"]), "A train request")
    text = encode(document | {"control_round": control_round}, "The document of a train request")
    return RecordDict({**records, "document": ConfigRecord({"json": text})})


def with_secure(records: RecordDict, secure: dict[str, Any]) -> RecordDict:
    """Return a train request or question that is to be answered by a masked vector.

    Parameters
    ----------
    records : RecordDict
        The content of the plain one; its arrays are not copied.
    secure : dict
        `protocol.secure.RoundCall.to_dict`, which goes into ``agreed["secure"]``.
    """
    document = decode(str(records["document"]["json"]), "A request")
    document["agreed"] = {**document["agreed"], "secure": secure}
    text = encode(document, "The document of a request")
    return RecordDict({**records, "document": ConfigRecord({"json": text})})


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
        return _pack("train reply", document, self.arrays)

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
        document, record = _unpack(records, "train reply", keys, where)
        num_patients, num_events, metrics = (document[key] for key in keys[:3])
        _need(_is_count(num_patients), where, "num_patients is not a count of 0 or more")
        _need(_is_count(num_events), where, "num_events is not a count of 0 or more")
        _need(isinstance(metrics, dict) and len(metrics) <= MAX_METRICS, where, "bad metrics")
        for name, value in metrics.items():
            good = METRIC_NAME.fullmatch(name) and type(value) in (int, float)
            _need(bool(good), where, "a metric is not a plain name with a number")
        rate_sum = document.get("rate_sum")
        good = not controlled or _is_rate(rate_sum)
        _need(good, where, "rate_sum is not a number above 0")
        _need(record is not None, where, "the model is missing")
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
            "study": _study_text(self.study),
            "topic": self.topic,
            "agreed": self.agreed,
        }
        return _pack("question", document, self.arrays)

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
        document, record = _unpack(records, "question", keys, where)
        topic, agreed = document["topic"], document["agreed"]
        _need(isinstance(topic, str), where, "the topic is no text")
        _need(isinstance(agreed, dict), where, "the agreed values are no object")
        arrays = None if record is None else from_array_record(record, where, max_bytes)
        return cls(_study(document["study"], where), topic, agreed, arrays)


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
        return _pack("answer", {"answer": self.document}, None)

    @classmethod
    def from_records(cls, records: RecordDict, where: str) -> Self:
        """Read a received answer.

        Raises
        ------
        PayloadError
            If it is not one JSON object, or brings arrays.
        """
        document, record = _unpack(records, "answer", ("answer",), where)
        _need(record is None, where, "an answer brings no arrays")
        _need(isinstance(document["answer"], dict), where, "the answer is no object")
        return cls(document["answer"])
