"""Which studies a hospital lets run: manifests, decisions, and its policy, with the reasons."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from client.approval import study_hash_of
from client.manifests import decide, known
from client.membership import join, node_fingerprint, request
from deployment.certificates import certificate_pem, make_authority, new_key
from deployment.papers import make_manifest, make_welcome
from protocol import audit
from protocol.code import code_hash
from protocol.config import Study
from protocol.designs import derive
from protocol.documents import digest, encode
from protocol.errors import ConfigError
from protocol.manifest_message import MANIFEST, pack
from protocol.payload import Answer, Question, Refusal, TrainRequest

NOW = datetime.now(UTC)
KEY = Ed25519PrivateKey.generate()
STUDY = {
    "name": "trial",
    "seed": 1,
    "hospitals": {"train": ["alpha", "beta"]},
    "stages": ["survey", "prognosis"],
    "prognosis": {
        "covariates": ["age"],
        "measurements": [],
        "network": {"name": "tabular"},
    },
}


def _study(**other: Any) -> Study:
    return Study.model_validate(STUDY | other)


def _manifest(study: Study | None = None, **other: Any) -> str:
    document = (study or _study()).model_dump(mode="json", by_alias=True)
    stage = {"weights": "f" * 64, "rounds": 3, "down_mb": 1.5, "up_mb": 1.5}
    values = {
        "consortium": "Heart",
        "study": document,
        "code_hash": code_hash(),
        "version": "0.1.0",
        "stages": {"prognosis": stage},
        "serial": 5,
        "now": NOW,
        "expires": NOW + timedelta(days=30),
    } | other
    return make_manifest(values.pop("key", KEY), **values)


class Hospital:
    """A hospital's directory, and its app asked as the worker asks it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def policy(self, text: str) -> None:
        (self.directory / "policy.yaml").write_text(text)

    def ask(self, kind: str, content: RecordDict) -> Message:
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        context = Context(1, 1, {"site": str(self.directory)}, RecordDict(), {})
        return app(Message(content, 1, kind), context)

    def answer(self, kind: str, content: RecordDict) -> dict[str, Any]:
        reply = self.ask(kind, content)
        assert not reply.has_error(), reply.error
        return Answer.from_records(reply.content, "the test").document

    def refusal(self, kind: str, content: RecordDict) -> Refusal:
        """Return the refusal, which the audit log must hold as well."""
        reply = self.ask(kind, content)
        assert reply.has_error()
        refusal = Refusal.from_error(reply.error)
        line = list(audit.read(self.directory / ".concors" / "audit.jsonl"))[-1]
        assert line["event"] == kind
        assert line["detail"]["outcome"] == refusal.code
        assert line["detail"]["sentence"] == refusal.sentence
        return refusal

    def decision(self, text: str) -> str:
        return self.answer(MANIFEST, pack(text))["decision"]

    def approve(self, study: Study | None = None) -> None:
        assert self.decision(_manifest(study)) == "waiting"
        decide(self.directory, digest(_document(study)), "approved")


def _document(study: Study | None = None) -> dict[str, Any]:
    return (study or _study()).model_dump(mode="json", by_alias=True)


def _survey(study: Study | None = None) -> RecordDict:
    return Question(study or _study(), "survey").to_records()


@pytest.fixture(scope="module")
def authority() -> str:
    made = make_authority(new_key(), "Heart", now=NOW, lifetime=timedelta(days=7))
    return certificate_pem(made).decode()


@pytest.fixture
def alone(tmp_path: Path) -> Hospital:
    """A hospital of twelve patients, four of them with the event, in no consortium."""
    site = tmp_path / "alpha"
    site.mkdir()
    (site / "site.yaml").write_text(
        "name: alpha\n"
        "outcomes: {path: o.csv, patient: patient, months: months, event: event}\n"
        "covariates: {age: {column: age, unit: years}}\n"
        "min_cell: 1\n"
    )
    rows = [f"p{i},{5 + i},{int(i % 3 == 0)},{50 + i}" for i in range(12)]
    (site / "o.csv").write_text("\n".join(["patient,months,event,age", *rows]) + "\n")
    return Hospital(site)


@pytest.fixture
def hospital(alone: Hospital, authority: str) -> Hospital:
    """The same hospital, in a consortium."""
    request(alone.directory)
    welcome = alone.directory.parent / "welcome.json"
    welcome.write_text(
        make_welcome(
            KEY,
            consortium="Heart",
            site="alpha",
            address="centre.example:8443",
            authority=authority,
            node_fingerprint=node_fingerprint(alone.directory),
            now=NOW,
        )
    )
    join(alone.directory, welcome)
    return alone


def test_hospital_in_no_consortium_answers_as_ever(alone: Hospital) -> None:
    assert alone.answer("query.survey", _survey())
    refusal = alone.refusal(MANIFEST, pack(_manifest()))
    assert refusal.code == "E820"
    assert "has joined no consortium yet" in refusal.sentence


def test_nothing_runs_before_an_engineer_approves_it(hospital: Hospital) -> None:
    refusal = hospital.refusal("query.survey", _survey())
    assert refusal.code == "E810"
    assert "never shown a manifest of the study" in refusal.sentence
    assert hospital.decision(_manifest()) == "waiting"
    assert "is waiting at this hospital" in hospital.refusal("query.survey", _survey()).sentence
    chosen = decide(hospital.directory, known(hospital.directory)[0].study_hash[:8], "approved")
    assert chosen.study == _study()
    assert hospital.decision(_manifest()) == "approved"
    assert hospital.answer("query.survey", _survey())
    decide(hospital.directory, chosen.study_hash, "declined")
    assert hospital.decision(_manifest()) == "declined"
    assert "is declined at this" in hospital.refusal("query.survey", _survey()).sentence
    events = [line["event"] for line in audit.read(hospital.directory / ".concors/audit.jsonl")]
    assert [e for e in events if e in ("manifest", "approved", "declined")] == [
        "manifest",
        "approved",
        "declined",
    ]


def test_every_kind_of_message_is_asked_for_its_approval(hospital: Hospital) -> None:
    weights = {"w": np.zeros(1, np.float32)}
    train = TrainRequest(_study(), "prognosis", 1, {}, weights).to_records()
    asked = {
        "train.sort": train,
        "train.segment": train,
        "train.prognosis": train,
        "train.gradient": train,
    }
    questions = "survey measure cox risk_sets scores secure_open secure_tell"
    asked |= {f"query.{topic}": _survey() for topic in questions.split()}
    topics = "sort segment prognosis regression causes weighted calibration subgroups"
    asked |= {f"evaluate.{topic}": _survey() for topic in topics.split()}
    # Whatever the app serves beside these says nothing of a study.
    assert asked.keys() == app._registered_funcs.keys() - {"query.hello", MANIFEST}
    codes = {kind: hospital.refusal(kind, content).code for kind, content in asked.items()}
    assert set(codes.values()) == {"E810"}, codes


def test_study_that_differs_by_a_byte_is_another_one(hospital: Hospital) -> None:
    hospital.approve()
    other = _survey(_study(seed=2))
    assert "never shown a manifest" in hospital.refusal("query.survey", other).sentence
    document = json.loads(str(_survey()["document"]["json"]))
    spaced = document | {"study": document["study"] + " "}
    content = RecordDict({"document": ConfigRecord({"json": encode(spaced, "test")})})
    assert "never shown a manifest" in hospital.refusal("query.survey", content).sentence
    message = Message(_survey(), 1, "query.survey")
    assert study_hash_of(message) == digest(_document())


OTHER_KEY = Ed25519PrivateKey.generate()
ONE_BYTE = code_hash()[:-1] + ("0" if code_hash()[-1] != "0" else "1")


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (_manifest(key=OTHER_KEY), "E820", "signature of the manifest does not fit"),
        (_manifest().replace('"seed":1', '"seed":2'), "E820", "signature of the manifest"),
        (_manifest(expires=NOW - timedelta(days=1), now=NOW - timedelta(days=9)), "E820", "valid"),
        (_manifest(now=NOW + timedelta(days=1)), "E820", "set the clock"),
        (_manifest(consortium="Lung"), "E820", "another consortium"),
        (_manifest(code_hash=ONE_BYTE), "E810", "install the same"),
        (_manifest(stages={"sort": {}}), "E820", "stages are not those of its study"),
        (_manifest(stages={"prognosis": {"rounds": -1}}), "E820", "same version"),
        ("{}", "E820", "no manifest of this version"),
    ],
    ids=["key", "altered", "expired", "early", "consortium", "code", "stages", "traffic", "empty"],
)
def test_wrong_manifest_is_refused(hospital: Hospital, text: str, code: str, sentence: str) -> None:
    refusal = hospital.refusal(MANIFEST, pack(text))
    assert (refusal.code, known(hospital.directory)) == (code, [])
    assert sentence in refusal.sentence


def test_old_manifest_is_not_taken_for_new(hospital: Hospital) -> None:
    hospital.approve()
    second = _study(seed=2)
    assert hospital.decision(_manifest(second, serial=6)) == "waiting"
    refusal = hospital.refusal(MANIFEST, pack(_manifest()))
    assert refusal.code == "E820"
    assert "has the serial 5, and this hospital has seen 6" in refusal.sentence
    # Of another name it is no older one.
    assert hospital.decision(_manifest(_study(name="other"), serial=4)) == "waiting"


def test_what_travels_is_part_of_what_was_approved(hospital: Hospital) -> None:
    hospital.approve()
    stage = {"weights": "f" * 64, "rounds": 4, "down_mb": 1.5, "up_mb": 1.5}
    assert hospital.decision(_manifest(stages={"prognosis": stage}, serial=6)) == "waiting"
    assert hospital.refusal("query.survey", _survey()).code == "E810"


def test_approval_ends_with_the_manifest(hospital: Hospital, monkeypatch) -> None:
    hospital.approve()

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW + timedelta(days=31)

    monkeypatch.setattr("client.approval.datetime", Later)
    refusal = hospital.refusal("query.survey", _survey())
    assert refusal.code == "E820"
    assert "ask for a new one" in refusal.sentence


def test_study_named_in_the_policy_needs_no_word(hospital: Hospital) -> None:
    hospital.policy(f"studies: {{approved: ['{digest(_document())}']}}")
    assert hospital.decision(_manifest()) == "approved"
    assert hospital.answer("query.survey", _survey())


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("studies: {stages: [survey]}", "has 'prognosis' among its stages, and .* allows survey;"),
        ("studies: {networks: [unet]}", "has 'tabular' among its networks"),
        ("studies: {strategies: [median]}", "has 'fedavg' among its strategies"),
        ("max_payload_mb: 1", "would send 2 MB, and this hospital's policy allows 1 MB"),
    ],
)
def test_policy_refuses_a_manifest(hospital: Hospital, policy: str, sentence: str) -> None:

    hospital.policy(policy)
    refusal = hospital.refusal(MANIFEST, pack(_manifest()))
    assert refusal.code == "E810"
    assert re.search(sentence, refusal.sentence)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("studies: {stages: [survey]}", "among its stages"),
        ("max_payload_mb: 0.0001", "The request has 0.0 MB, and this hospital's policy allows"),
        ("minimum: {patients: 13}", "at least 13 patients and 0 events only"),
        ("minimum: {events: 5}", "at least 1 patients and 5 events only"),
    ],
)
def test_policy_refuses_a_request_also_in_no_consortium(
    alone: Hospital, policy: str, sentence: str
) -> None:
    alone.policy(policy)
    refusal = alone.refusal("query.survey", _survey())
    assert refusal.code == "E810"
    assert sentence in refusal.sentence


def test_policy_at_its_limits_lets_pass(alone: Hospital) -> None:
    alone.policy("minimum: {patients: 12, events: 4}\nstudies: {stages: [survey, prognosis]}")
    assert alone.answer("query.survey", _survey())


def test_training_begins_in_the_hospitals_hours_only(alone: Hospital) -> None:
    day = datetime.now().strftime("%a").lower()
    others = [d for d in ("mon", "tue", "wed", "thu", "fri", "sat", "sun") if d != day]
    # Neither today nor, past midnight, from yesterday.
    alone.policy(f"hours: [{{days: [{others[3]}], begin: '08:00', until: '18:00'}}]")
    weights = {"w": np.zeros(1, np.float32)}
    train = TrainRequest(_study(), "prognosis", 1, {}, weights).to_records()
    refusal = alone.refusal("train.prognosis", train)
    assert refusal.code == "E810"
    assert f"({others[3]} 08:00-18:00)" in refusal.sentence
    assert alone.answer("query.survey", _survey())


@pytest.mark.parametrize("harm", ["not json", '{"decision": "yes", "manifest": "{}"}'])
def test_record_that_was_spoilt_is_named(hospital: Hospital, harm: str) -> None:
    hospital.approve()
    (path,) = (hospital.directory / ".concors" / "studies").glob("*.json")
    path.write_text(harm)
    refusal = hospital.refusal("query.survey", _survey())
    assert refusal.code == "E820"
    assert "remove it, and the server will send the manifest again" in refusal.sentence


@pytest.mark.parametrize("digits", ["", "0123", "zzzzzzzz"])
def test_hash_must_name_one_study(hospital: Hospital, digits: str) -> None:

    hospital.approve()
    with pytest.raises(ConfigError, match="give at least 8 digits"):
        decide(hospital.directory, digits, "approved")


def test_an_approval_covers_the_studies_of_the_studys_own_designs(hospital: Hospital) -> None:
    study = _study(
        stages=["survey", "prognosis", "validate"],
        validate={"designs": ["leave-one-hospital-out"]},
    )
    derived = derive(study, "leave-one-hospital-out")
    assert hospital.decision(_manifest(study)) == "waiting"
    assert "waiting" in hospital.refusal("query.survey", _survey(derived["beta"])).sentence
    decide(hospital.directory, digest(_document(study)), "approved")
    assert not hospital.ask("query.survey", _survey(derived["beta"])).has_error()
    # What is not of them was not approved: another design, or the same with one thing changed.
    for other in (
        derive(study, "hospital-matrix")["alpha"],
        derived["beta"].model_copy(update={"seed": 2}),
    ):
        assert "never shown" in hospital.refusal("query.survey", _survey(other)).sentence


def test_one_of_two_studies_with_the_same_derived_ones_being_approved_is_enough(
    hospital: Hospital,
) -> None:
    stages, one = ["survey", "prognosis", "validate"], ["leave-one-hospital-out"]
    first = _study(stages=stages, validate={"designs": one})
    second = _study(stages=stages, validate={"designs": [*one, "hospital-matrix"]})
    assert hospital.decision(_manifest(first)) == "waiting"
    decide(hospital.directory, digest(_document(first)), "declined")
    assert hospital.decision(_manifest(second, serial=6)) == "waiting"
    decide(hospital.directory, digest(_document(second)), "approved")
    derived = derive(first, "leave-one-hospital-out")["beta"]
    assert not hospital.ask("query.survey", _survey(derived)).has_error()
