"""An append-only log in which no line can be changed, removed or moved unnoticed.

Each line is one JSON object that carries the SHA-256 of the line before it and of itself. Cutting
off the newest lines leaves a valid chain, so the newest hash (`verify` returns it) is what two
parties exchange.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from protocol.documents import check_keys, decode, encode
from protocol.errors import DataError, PayloadError

__all__ = ["START", "Head", "add", "append", "read", "verify"]

START = "0" * 64
MAX_LINE_BYTES = 64 * 1024
KEYS = frozenset({"index", "time", "event", "detail", "previous", "hash"})


class Head(NamedTuple):
    """How many lines a log has, and the hash of the newest (64 zeros where there is none)."""

    num_lines: int
    hash: str


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _hash(line: dict[str, Any]) -> str:
    body = {key: value for key, value in line.items() if key != "hash"}
    return hashlib.sha256(encode(body, "An audit line").encode()).hexdigest()


def _last(descriptor: int, name: str) -> tuple[Head, int]:
    """Return the head of an open log and where its last whole line ends."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - 2 * MAX_LINE_BYTES)
    tail = os.pread(descriptor, size - start, start)
    end = tail.rfind(b"\n") + 1
    if end == 0:
        if start > 0:
            raise DataError(f"Audit log {name} ends in a line that is too long; verify it.")
        return Head(0, START), 0
    line = tail[tail.rfind(b"\n", 0, end - 1) + 1 : end - 1]
    try:
        values = decode(line.decode(), "The last line")
        check_keys(values, KEYS, "The last line")
        return Head(int(values["index"]) + 1, str(values["hash"])), start + end
    except (PayloadError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise DataError(
            f"Audit log {name} does not end in a valid line; keep the file and start a new one."
        ) from error


def append(
    path: Path,
    event: str,
    detail: dict[str, Any],
    *,
    sync: bool = False,
    now: Callable[[], datetime] = _utc_now,
) -> str:
    """Add one event as `add` does, and return its hash."""
    return add(path, event, detail, sync=sync, now=now).hash


def add(
    path: Path,
    event: str,
    detail: dict[str, Any],
    *,
    sync: bool = False,
    now: Callable[[], datetime] = _utc_now,
) -> Head:
    """Add one event and return the new head of the log.

    A last line that was cut short by a crash is dropped first (it was never complete, so no one
    can have seen its hash). Processes take turns by a lock on the file.

    Parameters
    ----------
    detail : dict
        JSON values; never a patient identifier.
    sync : bool
        Wait until the disk has it.

    Raises
    ------
    DataError
        If the log does not end in a valid line, or the disk takes only part of the new one.
    PayloadError
        If the detail cannot be written as JSON or makes a line longer than 64 KiB.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        head, end = _last(descriptor, path.name)
        line: dict[str, Any] = {
            "index": head.num_lines,
            "time": now().isoformat(),
            "event": event,
            "detail": detail,
            "previous": head.hash,
        }
        line["hash"] = _hash(line)
        text = encode(line, "An audit line").encode() + b"\n"
        if len(text) > MAX_LINE_BYTES:
            raise PayloadError(f"Audit event {event} exceeds 64 KiB; log a fingerprint instead.")
        os.ftruncate(descriptor, end)
        # A full disk may take half a line and say so only by the count.
        if os.write(descriptor, text) != len(text):
            raise DataError(f"Audit log {path.name} could not be written whole; make room on disk.")
        if sync:
            os.fsync(descriptor)
        return Head(head.num_lines + 1, str(line["hash"]))
    finally:
        os.close(descriptor)


def verify(path: Path, *, head: str | None = None) -> Head:
    """Check the whole chain and return its head.

    Parameters
    ----------
    head : str, optional
        A hash noted earlier; it must stand somewhere in the log, which shows that no line up to
        it was cut off.

    Raises
    ------
    DataError
        Naming the first line that was changed, removed, moved or cut.
    """
    newest, seen = Head(0, START), head is None or head == START
    for line in read(path):
        newest = Head(line["index"] + 1, line["hash"])
        seen = seen or newest.hash == head
    if not seen:
        raise DataError(
            f"Audit log {path.name} does not contain the noted hash; lines were cut off its end, "
            "so compare it with a copy."
        )
    return newest


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Give the lines of a log one by one, each checked against the one before it.

    A line that reads the same but is written otherwise (``1E-5`` for ``1e-05``) is refused as well,
    so every byte counts.

    Raises
    ------
    DataError
        As `verify`.
    """
    previous = START
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                line = decode(raw.decode(), "The line")
                check_keys(line, KEYS, "The line")
                good = raw == encode(line, "The line").encode() + b"\n"
                good = good and line["index"] == number - 1 and line["previous"] == previous
                good = good and line["hash"] == _hash(line)
            except (PayloadError, UnicodeDecodeError):
                good = False
            if not good:
                raise DataError(
                    f"Audit log {path.name} was altered at line {number}; compare it with a copy "
                    "and treat the lines from there on as unproven."
                )
            previous = line["hash"]
            yield line
