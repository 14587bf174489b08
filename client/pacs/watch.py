"""Bounds on what an archive sends: bytes, time, silence, and how fast.

Every byte of both protocols is counted here as it is read, so that a limit holds before memory or
disk is used. What hangs is ended from outside: a thread shuts the sockets, and whoever reads from
them goes on with an error.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from client.pacs.settings import MEGABYTE, PacsSettings
from protocol.errors import TransferError

__all__ = ["Stop", "Watch"]

# Frames around a file's own bytes: presentation data headers, command sets, multipart headers.
OVERHEAD_BYTES = 16_384
OVERHEAD_SHARE = 32
STEP_S = 0.1
MAX_REPLY_BYTES = 64 * MEGABYTE


class Stop(OSError):
    """Raised where bytes are read; an ``OSError``, which every network library passes on."""


class Watch:
    """The bounds of one transfer after the other.

    Parameters
    ----------
    settings : PacsSettings
        Limits.
    clock, sleep : callable
        Seconds.

    Attributes
    ----------
    failure : str or None
        Why the transfer at hand was ended.
    final : bool
        Whether trying again would end the same way.
    """

    def __init__(
        self,
        settings: PacsSettings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings, self.clock, self.sleep = settings, clock, sleep
        self.lock = threading.Lock()
        self.sockets: list[socket.socket] = []
        self.failure: str | None = None
        self.final = False
        self.max_bytes = self.total = self.pending = 0
        self.deadline = self.last = clock()
        # When the next byte and the next file are due under the limits of speed.
        self.byte_due = self.file_due = clock()

    @contextmanager
    def transfer(self, max_bytes: int = MAX_REPLY_BYTES, used: int = 0) -> Iterator[None]:
        """Bound what happens inside: at most ``max_bytes``, of which ``used`` are gone already.

        Raises
        ------
        TransferError
            Instead of `Stop`, and of whatever else went wrong after a limit had been met.
        """
        self.failure, self.final, self.sockets = None, False, []
        self.max_bytes, self.total, self.pending = max_bytes, used, 0
        self.last = self.clock()
        self.deadline = self.last + self.settings.study_timeout_s
        done = threading.Event()
        thread = threading.Thread(target=self._guard, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        except Exception as error:
            if self.failure is not None:
                raise TransferError(self.failure) from error
            raise
        finally:
            done.set()
            thread.join()
            self._shut()
        if self.failure is not None:
            raise TransferError(self.failure)

    def opened(self, connection: socket.socket) -> None:
        """Note a connection, to be shut when a bound is met."""
        with self.lock:
            self.sockets.append(connection)
        if self.failure is not None:
            self._shut()

    def fail(self, sentence: str, *, final: bool = False) -> Stop:
        """End the transfer; return the error for whoever reads, to raise."""
        with self.lock:
            if self.failure is None:
                self.failure, self.final = sentence, final
        return Stop(self.failure)

    def count(self, num_bytes: int) -> None:
        """Count bytes that were read, and wait where the limit of speed says so.

        Raises
        ------
        Stop
            If a bound is met.
        """
        with self.lock:
            self.total += num_bytes
            self.pending += num_bytes
            self.last = self.clock()
        limits = self.settings
        if self.pending > limits.max_file_bytes + OVERHEAD_BYTES:
            raise self.fail(
                f"the archive sends a file of more than {limits.max_file_megabytes} MB; raise "
                "pacs.max_file_megabytes if it is wanted.",
                final=True,
            )
        if self.total > self.max_bytes:
            raise self.fail(
                f"the archive sends more than {self.max_bytes // MEGABYTE} MB at once; raise "
                "pacs.max_study_megabytes if it is wanted.",
                final=True,
            )
        if limits.megabytes_per_second is not None:
            rate = limits.megabytes_per_second * MEGABYTE
            self.byte_due = max(self.byte_due, self.clock()) + num_bytes / rate
            self._wait(self.byte_due)
        self.check()

    def settle(self, num_bytes: int) -> None:
        """Note that so many bytes of what was counted are a whole file now."""
        with self.lock:
            whole = num_bytes + num_bytes // OVERHEAD_SHARE + OVERHEAD_BYTES
            self.pending = max(0, self.pending - whole)

    def file_done(self) -> None:
        """Wait, after a file, as long as the limit of files a second says."""
        rate = self.settings.files_per_second
        if rate is not None:
            self.file_due = max(self.file_due, self.clock()) + 1 / rate
            self._wait(self.file_due)

    def check(self) -> None:
        """Raise `Stop` if the transfer was ended."""
        if self.failure is not None:
            raise Stop(self.failure)

    def _wait(self, due: float) -> None:
        # A pause of ours is neither the archive's silence nor part of its time.
        while self.failure is None and (left := due - self.clock()) > 0:
            pause = min(left, STEP_S)
            self.sleep(pause)
            with self.lock:
                self.deadline += pause
                self.last = self.clock()

    def overdue(self) -> str | None:
        """Return which bound of time is passed, as a sentence."""
        now, limits = self.clock(), self.settings
        if now > self.deadline:
            return (
                f"the archive takes more than {limits.study_timeout_s:g} s for one study; raise "
                "pacs.study_timeout_s if it is that slow."
            )
        if now - self.last > limits.silence_timeout_s:
            return (
                f"the archive was silent for {limits.silence_timeout_s:g} s; ask whether it is "
                "busy, or raise pacs.silence_timeout_s."
            )
        return None

    def _guard(self, done: threading.Event) -> None:
        while not done.wait(STEP_S):
            problem = self.overdue()
            if problem is not None:
                self.fail(problem)
            if self.failure is not None:
                self._shut()

    def _shut(self) -> None:
        with self.lock:
            for connection in self.sockets:
                # The plain socket's shutdown: that of an encrypted one changes what a reader in
                # another thread is using.
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
