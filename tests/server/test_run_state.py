"""``run.json`` survives crashes and two writers; ``ended.json`` counts for its own attempt."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.errors import DataError
from server.outcome import Outcome, read_outcome, write_outcome
from server.run_state import State, change, read, runs


def test_the_first_change_writes_the_first_state(tmp_path: Path) -> None:
    assert change(tmp_path, lambda state: state) == State() == read(tmp_path)


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    def count() -> None:
        for _ in range(20):
            change(tmp_path, lambda old: replace(old, attempts=old.attempts + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(tmp_path).attempts == 80


def test_a_failing_change_changes_nothing(tmp_path: Path) -> None:
    change(tmp_path, lambda old: replace(old, attempts=3))
    with pytest.raises(ZeroDivisionError):
        change(tmp_path, lambda old: replace(old, attempts=1 // 0))
    assert read(tmp_path).attempts == 3
    assert change(tmp_path, lambda old: old).attempts == 3  # and the lock is free


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"attempts":0,"flower_run":0,"kills":3,"sentence":"","state":"running"}',
        '{"attempts":0,"flower_run":0,"kills":[],"sentence":"","state":"lost"}',
    ],
)
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "s-1"
    folder.mkdir()
    (folder / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"^s-1/run.json (cannot be read|has no known state)"):
        read(folder)


def test_runs_are_listed_by_study_and_number(tmp_path: Path) -> None:
    for name in ("b-1", "a-10", "a-9", "a-b-2"):
        (tmp_path / name).mkdir()
        change(tmp_path / name, lambda state: state)
    (tmp_path / "no-run-3").mkdir()
    assert [folder.name for folder in runs(tmp_path)] == ["a-9", "a-10", "a-b-2", "b-1"]


def test_an_outcome_is_of_one_attempt(tmp_path: Path) -> None:
    assert read_outcome(tmp_path, 1) is None
    outcome = Outcome(2**63 + 1, "E500", "Too few came.")
    write_outcome(tmp_path, outcome)
    assert read_outcome(tmp_path, 2**63 + 1) == outcome
    assert read_outcome(tmp_path, 1) is None
    (tmp_path / "ended.json").write_text('{"flower')
    assert read_outcome(tmp_path, 2**63 + 1) is None
