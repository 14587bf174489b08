"""A log that notices an older copy of itself, and tells that from a crash.

It is a log of `protocol.audit`: JSON lines, each with the hash of the one before. The head
file, which lies elsewhere, holds the number of lines and the newest hash. A line is on the disk
before the head names it, and the head before anybody may act on the line. So these states exist:

=====================================  ==========================================================
head names the last line               at rest
one whole line more, or a piece of     a crash between the two writes; nobody acted on it: a whole
one without its end                    line is kept (and counts), a piece is dropped
lines missing, or another hash         an older copy was put back, or lines were changed: refused
two lines more, or no readable head    the head was put back or changed: refused
=====================================  ==========================================================

Whoever puts an older copy of both back at once is not detected here. The newest hash
(`SealedLog.head`) can be told to others, as it says nothing, so that they may notice.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protocol import audit
from protocol.errors import DataError, PayloadError, PrivacyError

__all__ = ["ADVICE", "SealedLog"]

MAX_HEAD_BYTES = 200
ADVICE = (
    "No budget can be granted from it: put the newest copies of both files back, or ask who "
    "changed them; without them what these patients have spent is unknown."
)


class SealedLog:
    """A log and its head file, safe against crashes and against several processes at once.

    Parameters
    ----------
    path, head_path : Path
        Made on first use, readable by their owner only. A lock file lies beside the log.
    """

    def __init__(self, path: Path, head_path: Path) -> None:
        self._path = path
        self._head_path = head_path

    @property
    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self._path.exists() or self._head_path.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out; what follows needs it.

        Raises
        ------
        PrivacyError
            If the lock cannot be made.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unwritable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines, after the last crash, if there was one, is made good.

        Raises
        ------
        PrivacyError
            If the log or its head was altered, or cannot be read.
        """
        head = self.head()
        try:
            if self._path.exists():
                self._drop_torn_line(head)
                lines = list(audit.read(self._path))
            else:
                lines = []
        except DataError as error:
            raise PrivacyError(f"{_place(error)} {ADVICE}") from error
        except OSError as error:
            raise _unwritable(error) from error
        if len(lines) < head.num_lines:
            raise PrivacyError(
                f"the privacy ledger has {len(lines)} lines and its head file says "
                f"{head.num_lines}; an older copy was put back or lines were cut off. {ADVICE}"
            )
        named = lines[head.num_lines - 1]["hash"] if head.num_lines else audit.START
        if named != head.hash or len(lines) > head.num_lines + 1:
            raise PrivacyError(
                "the privacy ledger and its head file do not belong together; one of them was "
                f"changed or an older copy of it put back. {ADVICE}"
            )
        if len(lines) > head.num_lines:
            self._write_head(audit.Head(len(lines), lines[-1]["hash"]))
        return lines

    def _drop_torn_line(self, head: audit.Head) -> None:
        # Only what stands behind the lines that the head names can be a write that a crash cut
        # short; a piece before that is damage, and stays for `audit.read` to find.
        data = self._path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data) and data.count(b"\n") == head.num_lines:
            with self._path.open("r+b") as stream:
                stream.truncate(end)
                os.fsync(stream.fileno())

    def append(self, event: str, detail: dict[str, Any]) -> str:
        """Add a line and return its hash; when this returns, line and head are on the disk.

        Call `lines` before, under the same lock.

        Raises
        ------
        PrivacyError
            If the disk does not take it.
        """
        try:
            new = not self._path.exists()
            name = audit.append(self._path, event, detail, sync=True)
            if new:
                _sync_folder(self._path.parent)
            self._write_head(audit.Head(self.head().num_lines + 1, name))
        except (OSError, DataError, PayloadError) as error:
            raise _unwritable(error) from error
        return name

    def head(self) -> audit.Head:
        """Return what the head file says: how many lines, and the newest hash.

        Raises
        ------
        PrivacyError
            If it was changed or cannot be read.
        """
        try:
            with self._head_path.open("rb") as stream:
                text = stream.read(MAX_HEAD_BYTES)
        except FileNotFoundError:
            return audit.Head(0, audit.START)
        except OSError as error:
            raise _unwritable(error) from error
        count, _, name = text.decode("ascii", "replace").partition(" ")
        good = count.isdecimal() and count.isascii() and 1 <= len(count) <= 12
        head = audit.Head(int(count), name.rstrip("\n")) if good else None
        if head is None or _head_text(head) != text:
            raise PrivacyError(f"the head file of the privacy ledger was changed. {ADVICE}")
        return head

    def _write_head(self, head: audit.Head) -> None:
        draft = self._head_path.with_suffix(".draft")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                if os.write(descriptor, _head_text(head)) != len(_head_text(head)):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            draft.replace(self._head_path)
            _sync_folder(self._head_path.parent)
        except OSError as error:
            raise _unwritable(error) from error


def _head_text(head: audit.Head) -> bytes:
    return f"{head.num_lines} {head.hash}\n".encode()


def _place(error: DataError) -> str:
    return error.sentence.partition(";")[0].replace("Audit log", "privacy ledger") + "."


def _unwritable(error: Exception) -> PrivacyError:
    why = error.strerror if isinstance(error, OSError) else "a line was not taken whole"
    return PrivacyError(
        f"the privacy ledger cannot be written ({why}), so nothing was computed; make room on the "
        "disk and the site's folder writable."
    )


def _sync_folder(folder: Path) -> None:
    # The name of a new file is in its folder, which has to reach the disk as well.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
