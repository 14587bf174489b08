"""What the node answers before its worker is asked: refusals, and replies that were kept."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.node.answering import Answering
from client.node.jobs import Jobs
from client.node.kept import KeptReplies, request_id
from client.node.site_state import site_state
from client.node.worker import reply_of
from client.node.worker_process import WorkerProcess
from protocol import audit
from protocol.config import Study
from protocol.documents import digest, encode
from protocol.names import is_packed
from protocol.parcels import pack, unpack


@pytest.fixture(autouse=True)
def _task() -> None:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


@pytest.fixture
def site(tmp_path: Path, harness: ModuleType) -> Path:
    return harness.make_site(tmp_path / "alpha")


@pytest.fixture
def process(site: Path, tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker that would end at once; none of these messages may start it."""
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    with WorkerProcess(command, site, tmp_path / "logs", {}) as worker:
        yield worker
        assert worker.num_started == 0


def ask(site: Path, process: WorkerProcess, message: Message) -> Message:
    answering = Answering(site, process)
    with Jobs(process, answering.keep) as jobs:
        return answering.answer(jobs, message, lambda: None)


def test_parcels_that_hold_no_message_are_refused_and_written_down(
    site: Path, process: WorkerProcess
) -> None:
    broken = RecordDict({"parcel-00000": ConfigRecord({"bytes": b"no message"})})
    reply = ask(site, process, Message(broken, 7, "query.survey"))
    assert reply.has_error() and reply.error.code == 400
    (line,) = audit.read(site / ".concors" / "audit.jsonl")
    assert (line["event"], line["detail"]["outcome"]) == ("query.survey", "E400")


def test_a_reply_that_was_kept_comes_back_in_its_parcels(
    site: Path, process: WorkerProcess
) -> None:
    study = {"name": "s", "seed": 1, "hospitals": {"train": ["alpha"]}, "stages": ["survey"]}
    document = Study.model_validate(study).model_dump(mode="json", by_alias=True)
    text = encode({"study": encode(document, "The study")}, "The question")
    message = Message(
        pack(RecordDict({"document": ConfigRecord({"json": text})})), 7, "query.survey"
    )
    records = RecordDict({"arrays": ArrayRecord({"w": Array(np.ones(9, np.float32))})})
    kept = KeptReplies(site / ".concors" / "node" / "kept")
    request = request_id(message, site_state(site))
    assert kept.keep(digest(document), request, pack(records), newest=1, max_mb=1.0)
    reply = ask(site, process, message)
    assert is_packed(reply.content)
    assert unpack(reply.content).object_id == records.object_id


def test_a_worker_without_memory_says_so(site: Path) -> None:
    def app(*_: object) -> Message:
        raise MemoryError

    reply = reply_of(app, Message(RecordDict(), 7, "query.survey"), site)
    assert reply.error.code == 830 and "out of memory" in reply.error.reason
