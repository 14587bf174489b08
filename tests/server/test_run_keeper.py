"""What happens with a run is what its ``run.json`` wants, whatever became of its processes.

The SuperLink is played by a class that keeps a list; the server app by a program that does what a
test says; what starts, watches and ends it is the real thing.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployment.processes import Processes, processes
from deployment.tasks import Task
from protocol import audit
from protocol.errors import ConfigError
from server.consortium import Consortium, Settings
from server.founding import create
from server.run_folders import find_run, resume_run, stop_run
from server.run_keeper import RunKeeper
from server.run_state import change, read

NOW = datetime.now(UTC)
# Says how it ended as the real one does, by a file; "behave" stands in the run's folder.
APP = """#!{python}
import json, os, pathlib, signal, sys, time
run = pathlib.Path(os.environ["CONCORS_RUN"])
token = pathlib.Path(sys.argv[sys.argv.index("--token-file") + 1]).read_text()
what = (run / "behave").read_text()
with (run / "tokens").open("a") as file:
    file.write(token + "\\n")
if what == "hang":
    time.sleep(300)
if what == "die":
    os.kill(os.getpid(), signal.SIGKILL)
code, sentence = ("E500", "Too few came.") if what == "refuse" else ("", "")
ended = {{"flower_run": int(token), "code": code, "sentence": sentence}}
(run / "ended.json").write_text(json.dumps(ended))
"""


class SuperLink:
    """Both interfaces of a SuperLink, as far as runs go; a run's token is its id."""

    def __init__(self) -> None:
        self.runs: dict[int, str] = {}

    def submit(self, bundle: Path, run_config: dict[str, str]) -> int:
        self.runs[100 + len(self.runs)] = "pending"
        return 99 + len(self.runs)

    def unfinished(self) -> set[int]:
        return {run for run, state in self.runs.items() if state != "finished"}

    def stop(self, run_id: int) -> None:
        self.runs[run_id] = "finished"

    def acquire(self) -> Task | None:
        for run, state in self.runs.items():
            if state == "pending":
                self.runs[run] = "running"
                return Task(run, str(run))
        return None


class Kept:
    """A consortium, a SuperLink, and what keeps the runs going."""

    def __init__(self, root: Path, running: Processes, consortium: Consortium) -> None:
        self.consortium, self.link = consortium, SuperLink()
        self.said: list[str] = []
        self.running = running
        app = root / "app"
        app.write_text(APP.format(python=sys.executable))
        app.chmod(0o700)
        self.keeper = RunKeeper(
            consortium,
            running,
            address="127.0.0.1:1",
            bundle=root,
            variables=dict(os.environ),
            private=root,
            say=self.said.append,
            server_app=str(app),
        )

    def look(self) -> None:
        link: Any = self.link
        self.keeper.look(link, link)

    def look_until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline
            self.look()
            time.sleep(0.02)

    def folder(self, behave: str, name: str = "s-1") -> Path:
        folder = self.consortium.runs / name
        folder.mkdir()
        (folder / "behave").write_text(behave)
        change(folder, lambda state: state)
        return folder

    def events(self) -> list[str]:
        return [line["event"] for line in audit.read(self.consortium.root / "audit.jsonl")][1:]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr("server.run_keeper.WAITS_S", (0.0,))
    settings = Settings(name="c", address="a:1", resumes_per_hour=2)
    consortium = create(tmp_path / "c", settings, now=NOW)
    with processes(tmp_path / "logs") as running:
        yield Kept(tmp_path, running, consortium)


def test_a_run_is_submitted_started_and_finished(kept: Kept) -> None:
    folder = kept.folder("finish")
    kept.look_until(lambda: read(folder).state == "finished" and not read(folder).flower_run)
    assert read(folder).attempts == 1
    assert (folder / "tokens").read_text() == "100\n"
    assert kept.events() == ["finished"]
    assert not kept.running.names()
    assert not list(folder.parents[2].glob("*.token"))
    kept.look()
    assert kept.link.runs == {100: "running"}  # nothing is begun anew


def test_a_sentence_of_ours_waits_for_a_person(kept: Kept) -> None:
    folder = kept.folder("refuse")
    kept.look_until(lambda: read(folder).state == "failed")
    assert read(folder).sentence == "E500 Too few came."
    assert kept.events() == ["failed"]
    kept.look()
    assert list(kept.link.runs) == [100]


def test_what_was_killed_is_taken_up_again_and_an_old_word_does_not_count(kept: Kept) -> None:
    folder = kept.folder("hang")
    kept.look_until(lambda: (folder / "tokens").exists())
    (folder / "ended.json").write_text('{"flower_run":99,"code":"","sentence":""}')
    (folder / "behave").write_text("finish")
    (process,) = [kept.running._running[name] for name in kept.running.names()]
    os.killpg(process.pid, signal.SIGKILL)
    kept.look_until(lambda: read(folder).state == "finished")
    assert (folder / "tokens").read_text() == "100\n101\n"
    assert kept.link.runs[100] == "finished"
    assert kept.events() == ["killed", "resume", "finished"]


def test_too_many_kills_within_an_hour_are_enough(kept: Kept) -> None:
    folder = kept.folder("die")
    kept.look_until(lambda: read(folder).state == "failed")
    assert (folder / "tokens").read_text() == "100\n101\n102\n"
    assert read(folder).sentence == (
        "The server app ended 3 times within an hour without a word (last with code -9); see "
        "logs/run-s-1.log, mend the cause and resume."
    )
    assert kept.events() == ["killed", "resume", "killed", "resume", "killed", "failed"]


def test_kills_of_long_ago_are_forgiven(kept: Kept) -> None:
    folder = kept.folder("die")
    past = tuple((NOW - timedelta(minutes=61)).isoformat() for _ in range(9))
    change(folder, lambda old: replace(old, kills=past))
    kept.look_until(lambda: len(read(folder).kills) == 1)
    assert read(folder).state == "running"


def test_stopping_ends_the_process_and_resuming_goes_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kept.folder("hang")
    kept.look_until(lambda: (folder / "tokens").exists())
    with pytest.raises(ConfigError, match="Run s-1 is running; there is nothing to resume"):
        resume_run(kept.consortium, folder, now=NOW, lifetime=timedelta(days=1))
    stop_run(kept.consortium, find_run(kept.consortium, None, ("running",)))
    kept.look()
    assert read(folder).flower_run == 0
    assert not kept.running.names()
    assert kept.link.runs == {100: "finished"}
    with pytest.raises(ConfigError, match="Run s-1 is stopped; it cannot be stopped"):
        stop_run(kept.consortium, folder)
    kept.look()
    assert list(kept.link.runs) == [100]
    (folder / "behave").write_text("finish")
    change(folder, lambda old: replace(old, state="running"))
    kept.look_until(lambda: read(folder).state == "finished")
    assert kept.events() == ["stop", "finished"]


def test_a_run_of_a_supervisor_that_is_gone_is_taken_up_without_a_kill_counted(
    kept: Kept,
) -> None:
    folder = kept.folder("finish")
    kept.link.runs[77] = "running"
    change(folder, lambda old: replace(old, flower_run=77, attempts=1))
    kept.look_until(lambda: read(folder).state == "finished")
    assert kept.link.runs[77] == "finished"
    assert (read(folder).attempts, read(folder).kills) == (2, ())
    assert kept.events() == ["restarted", "finished"]


def test_one_that_had_finished_just_before_is_not_run_again(kept: Kept) -> None:
    folder = kept.folder("finish")
    change(folder, lambda old: replace(old, flower_run=77, attempts=1))
    (folder / "ended.json").write_text('{"flower_run":77,"code":"","sentence":""}')
    kept.look()
    assert read(folder).state == "finished"
    assert kept.link.runs == {}


def test_work_that_nobody_here_submitted_is_stopped(kept: Kept) -> None:
    folder = kept.folder("finish")
    kept.link.runs[5] = "pending"
    kept.look_until(lambda: read(folder).state == "finished")
    assert kept.link.runs[5] == "finished"


def test_runs_go_side_by_side(kept: Kept) -> None:
    first, second = kept.folder("hang", "s-1"), kept.folder("finish", "t-1")
    kept.look_until(lambda: read(second).state == "finished")
    assert read(first).state == "running"
    with pytest.raises(ConfigError, match="There is no run x-1; there are s-1, t-1"):
        find_run(kept.consortium, "x-1", ())
    with pytest.raises(ConfigError, match=r"Several runs could be meant \(s-1, t-1\); name one"):
        find_run(kept.consortium, None, ("running", "finished"))
