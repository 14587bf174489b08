"""The audit log: any line changed, removed, moved or cut is found, at that line."""

import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from protocol import audit
from protocol.errors import DataError, PayloadError

NUM_LINES = 1000


def write(path: Path, count: int, start: int = 0) -> None:
    for index in range(start, start + count):
        audit.append(path, "reply.accepted", {"round": index, "site": "A"})


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    write(path, NUM_LINES)
    return path.read_bytes()


def test_a_whole_log_verifies_and_gives_its_head(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    last = [audit.append(path, "hello", {"n": n}) for n in range(5)][-1]
    assert audit.verify(path) == audit.Head(5, last)


def test_the_same_events_at_the_same_time_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        audit.append(tmp_path / name, "x", {}, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_change_is_found_at_its_line(tmp_path: Path, thousand: bytes) -> None:
    lines = thousand.splitlines(keepends=True)
    path = tmp_path / "audit.jsonl"
    for number in (1, 2, 500, 999, 1000):
        i = number - 1
        changed = [*lines[:i], lines[i].replace(b'"site":"A"', b'"site":"B"'), *lines[i + 1 :]]
        removed = [*lines[:i], *lines[i + 1 :]]
        doubled = [*lines[:number], lines[i], *lines[number:]]
        for kind in (changed, removed, doubled):
            path.write_bytes(b"".join(kind))
            at = number + 1 if kind is doubled else number
            if kind is removed and number == NUM_LINES:
                assert audit.verify(path).num_lines == NUM_LINES - 1
                continue
            with pytest.raises(DataError, match=f"was altered at line {at};"):
                audit.verify(path)


def test_two_lines_swapped_are_found(tmp_path: Path, thousand: bytes) -> None:
    lines = thousand.splitlines(keepends=True)
    lines[10], lines[11] = lines[11], lines[10]
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match="at line 11;"):
        audit.verify(path)


def test_lines_cut_off_the_end_are_found_with_a_noted_hash(tmp_path: Path, thousand: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(thousand)
    head = audit.verify(path).hash
    write(path, 1, NUM_LINES)
    assert audit.verify(path, head=head).num_lines == NUM_LINES + 1
    path.write_bytes(b"".join(thousand.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="does not contain the noted hash"):
        audit.verify(path, head=head)


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 3)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="at line 3;"):
        audit.verify(path)
    write(path, 1, 2)
    assert audit.verify(path).num_lines == 3


def test_a_log_that_ends_in_rubbish_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("rubbish\n")
    with pytest.raises(DataError, match=r"^Audit log audit.jsonl does not end in a valid line"):
        audit.append(path, "x", {})
    assert path.read_text() == "rubbish\n"


def test_an_event_that_cannot_be_written_leaves_the_log_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 2)
    for detail in ({"x": float("nan")}, {"x": "a" * 70_000}):
        with pytest.raises(PayloadError):
            audit.append(path, "x", detail)
    assert audit.verify(path).num_lines == 2


def test_processes_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write, args=(path, 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert audit.verify(path).num_lines == 150
