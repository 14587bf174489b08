"""The worker as its supervisor sees it: started, asked, watched, and replaced when it is lost."""

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from flwr.app import Message

from client.node.worker import ANSWER, OPTIONS, SERVICE
from deployment.processes import Processes
from protocol.errors import EngineError, PayloadError, WorkerError
from protocol.parts import assemble, parts_of

__all__ = ["START_S", "WorkerHung", "WorkerLost", "WorkerProcess"]

NAME = "worker"
PREFIX = "concors-"
# Torch and the other libraries load from a cold disk in less.
START_S = 300.0


class WorkerLost(WorkerError):
    """The worker's process ended, or its socket closed, before it had answered."""


class WorkerHung(WorkerError):
    """The worker did not answer within its time."""


class WorkerProcess:
    """At most one worker process at a time.

    Parameters
    ----------
    command : sequence of str
        Starts a worker; the path of a socket and that of the hospital are added to it.
    site_dir : Path
        The hospital.
    log_dir : Path
        Receives ``worker.log``; that of the worker before it is kept as ``worker.log.1``.
    variables : mapping of str to str
        The whole environment of the process.
    """

    def __init__(
        self,
        command: Sequence[str],
        site_dir: Path,
        log_dir: Path,
        variables: Mapping[str, str],
    ) -> None:
        self._command = tuple(command)
        self._site_dir = site_dir.resolve()
        self._log_dir = log_dir
        self._variables = dict(variables)
        self._lock = threading.RLock()
        log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The path of a Unix socket may have 107 bytes, which a hospital's directory may exceed.
        self._sockets = _fresh_directory(log_dir / "sockets")
        self._processes = Processes(log_dir)
        self._socket: Path | None = None
        self.num_started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._socket = None
            self._processes.close()
            self._sockets.cleanup()

    def ensure(self) -> None:
        """Start a worker if none runs."""
        with self._lock:
            if self._socket is not None and self._runs():
                return
            self.end()
            socket = Path(self._sockets.name) / secrets.token_hex(4)
            command = [*self._command, str(socket), str(self._site_dir)]
            self._processes.start(NAME, command, variables=self._variables, cwd=self._log_dir)
            self.num_started += 1
            self._socket = socket

    def end(self, patience_s: float = 0.0) -> None:
        """End the worker, if one runs, and whatever it started; what it was asked is lost."""
        with self._lock:
            self._processes.stop(patience_s)
            if self._socket is not None:
                self._socket.unlink(missing_ok=True)
            self._socket = None

    def ask(self, message: Message, limit_s: float, until: float) -> Message:
        """Return the worker's reply to a message, starting a worker first if need be.

        Parameters
        ----------
        limit_s : float
            Seconds it may take once the worker is up; a worker that takes longer is ended.
        until : float
            The end of all waiting, on the clock of ``time.monotonic``.

        Raises
        ------
        WorkerHung
            If it takes longer.
        WorkerLost
            If the worker ends before, by whatever cause, or does not start.
        """
        with self._lock:
            self.ensure()
            socket = self._socket
        with grpc.insecure_channel(f"unix:{socket}", options=OPTIONS) as channel:
            self._wait_until_up(channel)
            call = channel.stream_stream(f"/{SERVICE}/{ANSWER}")
            limit_s = max(0.0, min(limit_s, until - time.monotonic()))
            try:
                reply = assemble(call(parts_of(message), timeout=limit_s))
            except grpc.RpcError as error:
                self.end()
                raise self._lost(error, limit_s) from error
            except PayloadError:
                self.end()
                raise
        if not isinstance(reply, Message):
            raise WorkerLost("The worker's reply is no message; see worker.log of this node.")
        return reply

    def _lost(self, error: grpc.RpcError, limit_s: float) -> WorkerError:
        # A finished call is an RpcError that is also a Call; only the latter has a code.
        if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return WorkerHung(
                f"The hospital's worker had not answered after {limit_s:.0f} s and was replaced by "
                "a fresh one; raise the time limit in the hospital's policy.yaml or the study's "
                "deadline if the work needs longer."
            )
        return WorkerLost(
            "The hospital's worker was killed or ran out of memory before it had answered, and was "
            "replaced by a fresh one; its log and the machine's own say why."
        )

    def _wait_until_up(self, channel: grpc.Channel) -> None:
        ready = grpc.channel_ready_future(channel)
        waited = 0.0
        while True:
            try:
                ready.result(timeout=0.1)
                return
            except grpc.FutureTimeoutError:
                waited += 0.1
            if waited > START_S or not self._runs():
                ready.cancel()
                self.end()
                raise WorkerLost(
                    "The hospital's worker did not start; worker.log of this node says why."
                )

    def _runs(self) -> bool:
        with self._lock:
            try:
                self._processes.check()
            except EngineError:
                return False
            return self._socket is not None


def _fresh_directory(note: Path) -> "tempfile.TemporaryDirectory[str]":
    """Return a new directory of mode 0700; remove the one noted by a process that was killed."""
    if note.is_file():
        old = Path(note.read_text(encoding="utf-8"))
        if old.name.startswith(PREFIX):
            shutil.rmtree(old, ignore_errors=True)
    made = tempfile.TemporaryDirectory(prefix=PREFIX)
    note.write_text(made.name, encoding="utf-8")
    return made
