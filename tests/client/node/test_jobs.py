"""The worker as a real process, without a server: hung, killed, out of memory, given up."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.node.jobs import Jobs
from client.node.supervisor import WORKER
from client.node.worker_process import WorkerProcess
from protocol.payload import Answer

pytestmark = pytest.mark.slow


class Bench:
    """A worker that does as it is told, and what was kept of its replies."""

    def __init__(self, site: Path, worker: WorkerProcess) -> None:
        self.site = site
        self.worker = worker
        self.kept: list[str] = []
        self.jobs = Jobs(worker, lambda request, message, reply: self.kept.append(request))

    def message(self, **asked: Any) -> Message:
        document = ConfigRecord({"json": json.dumps(asked)})
        message = Message(RecordDict({"document": document}), 1, "train")
        message.metadata.__dict__["_message_id"] = message.object_id
        return message

    def ask(self, limit_s: float = 60.0, **asked: Any) -> Message:
        until = time.monotonic() + 120
        return self.jobs.begin("one", self.message(**asked), limit_s, until).result(timeout=120)

    def works(self) -> int:
        """Ask something simple; return the worker's process id."""
        reply = self.ask(do="add")
        return int(json.loads(str(reply.content["document"]["json"]))["pid"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, harness: ModuleType) -> Iterator[Bench]:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    directory = tmp_path_factory.mktemp("bench")
    # Longer than the path of a Unix socket may be.
    site = harness.make_site(directory / ("a" * 60) / ("b" * 60) / "alpha")
    command = [sys.executable, str(harness.APPS / "troublesome.py")]
    with WorkerProcess(command, site, directory / "logs", dict(os.environ)) as worker:
        bench = Bench(site, worker)
        with bench.jobs:
            yield bench


def test_worker_is_one_warm_process_behind_a_door_of_its_owner(bench: Bench) -> None:
    assert bench.works() == bench.works()
    socket = bench.worker._socket
    assert socket is not None
    assert socket.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == 0o700


def test_raised_error_is_a_reply_and_no_reason_to_replace_the_worker(bench: Bench) -> None:
    before = bench.works()
    assert bench.ask(do="raise").error.code == 900
    assert bench.works() == before


def test_asked_to_end_once_is_tried_again(bench: Bench) -> None:
    assert bench.ask(do="term", times=1).has_content()
    assert len(list(bench.site.glob("killed-*"))) == 1


def test_killed_twice_is_an_error_of_ours(bench: Bench) -> None:
    for mark in bench.site.glob("killed-*"):
        mark.unlink()
    reply = bench.ask(do="kill", times=9)
    assert reply.error.code == 830
    assert "was killed or ran out of memory" in reply.error.reason
    assert len(list(bench.site.glob("killed-*"))) == 2
    assert bench.works()


def test_hung_worker_is_ended_and_its_work_not_tried_again(bench: Bench) -> None:
    before, calls = bench.works(), len((bench.site / "calls").read_text())
    began = time.monotonic()
    reply = bench.ask(limit_s=1.0, do="sleep", s=600)
    assert reply.error.code == 830
    assert "had not answered after 1 s" in reply.error.reason
    assert time.monotonic() - began < 60
    assert len((bench.site / "calls").read_text()) == calls + 1
    assert not Path(f"/proc/{before}").exists()
    assert bench.works() != before


def test_out_of_memory_is_an_error_of_ours_and_the_worker_is_replaced(bench: Bench) -> None:
    before = bench.works()
    reply = bench.ask(do="allocate")
    assert reply.error.code == 830
    assert "ran out of memory" in reply.error.reason
    assert bench.works() != before


def test_end_of_the_process_is_noticed_at_once(bench: Bench) -> None:
    pid = bench.works()
    (bench.site / "sleeping").unlink(missing_ok=True)
    job = bench.jobs.begin("long", bench.message(do="sleep", s=1.5), 60, time.monotonic() + 60)
    while not (bench.site / "sleeping").exists():
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    # Done by the next worker, with no limit passed and nobody told.
    assert job.result(timeout=50).has_content()


def test_the_same_request_joins_the_job_and_another_one_ends_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.works()
    bench.kept.clear()
    (bench.site / "sleeping").unlink(missing_ok=True)
    until = time.monotonic() + 120
    first = bench.jobs.begin("long", bench.message(do="sleep", s=600), 600, until)
    while not (bench.site / "sleeping").exists():
        time.sleep(0.02)
    # Programs are started meanwhile, as a SuperNode would be.
    assert threading.active_count() > 1
    assert os.system("true") == 0  # noqa: S605
    assert bench.jobs.begin("long", bench.message(do="sleep", s=600), 600, until) is first
    with caplog.at_level(logging.WARNING, "concors.node"):
        second = bench.jobs.begin("other", bench.message(do="add"), 60, until)
    assert first.result().error.code == 830
    assert second.result(timeout=60).has_content()
    assert bench.kept[-1] == "other"


def test_two_hundred_megabytes_pass(bench: Bench) -> None:
    import numpy as np
    from flwr.app import Array, ArrayRecord

    message = bench.message(do="add")
    message.content["arrays"] = ArrayRecord({"w": Array(np.ones(50_000_000, np.float32))})
    reply = bench.jobs.begin("large", message, 120, time.monotonic() + 120).result(timeout=120)
    assert reply.content["arrays"]["w"].numpy().sum() == 50_000_000


def test_installed_app_answers_in_the_real_worker(site: Path, tmp_path: Path) -> None:
    message = Message(RecordDict(), 1, "query.hello")
    with WorkerProcess(WORKER, site, tmp_path / "logs", dict(os.environ)) as worker:
        reply = worker.ask(message, 60.0, time.monotonic() + 200)
    assert Answer.from_records(reply.content, "the test").document["site"] == "alpha"


def test_directory_of_a_killed_node_is_removed_by_the_next(site: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with WorkerProcess(WORKER, site, logs, {}):
        left = Path((logs / "sockets").read_text())
    (left / "socket").mkdir(parents=True)
    with WorkerProcess(WORKER, site, logs, {}):
        assert not left.exists()
    foreign = tmp_path / "else"
    foreign.mkdir()
    (logs / "sockets").write_text(str(foreign))
    with WorkerProcess(WORKER, site, logs, {}):
        assert foreign.exists()


def test_worker_that_does_not_start_is_an_error_of_ours(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no torch')"]
    with WorkerProcess(command, site, tmp_path / "logs", dict(os.environ)) as worker:
        bench = Bench(site, worker)
        with bench.jobs:
            reply = bench.ask(do="add")
    assert reply.error.code == 830
    assert "did not start; worker.log" in reply.error.reason
