"""Real processes that cannot outlive the study: start, watch, stop.

Every process leads its own session, so that one signal reaches it and whatever it started, and so
that Ctrl-C in a terminal reaches only us, who then stop the rest in order. On Linux the kernel
also ends them when we are killed without a chance to clean up.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sim.engines.contract import EngineError

__all__ = ["Processes", "free_ports", "processes"]

# A process inherits this wish over exec: "when my parent dies, send me SIGTERM" (prctl 1,
# PR_SET_PDEATHSIG). It is set in the child by a tiny first program and not by preexec_fn, which
# is unsafe as soon as the parent has threads.
GUARD = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 15)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(143)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


def free_ports(count: int) -> list[int]:
    """Find different TCP ports that are free on the loopback address at this moment."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Processes:
    """The processes of one run, in the order in which they were started.

    Parameters
    ----------
    log_dir : Path
        Output of the process called ``name`` goes to ``<log_dir>/<name>.log``.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, command: Sequence[str], *, variables: Mapping[str, str], cwd: Path
    ) -> None:
        """Start one process under a name, with exactly these environment variables.

        Raises
        ------
        EngineError
            When the program cannot be started.
        """
        guarded = list(command)
        if sys.platform == "linux":
            guarded = [sys.executable, "-I", "-S", "-c", GUARD, str(os.getpid()), *command]
        with self.log(name).open("ab") as log:
            try:
                self._running[name] = subprocess.Popen(  # noqa: S603 - our own command lines
                    guarded,
                    env=dict(variables),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineError(
                    f"{name} could not be started ({error.strerror}); check the installation"
                ) from error

    def log(self, name: str) -> Path:
        """Return the file that collects the output of a process."""
        return self._log_dir / f"{name}.log"

    def check(self) -> None:
        """Refuse to go on when a process has ended.

        Raises
        ------
        EngineError
            Naming the process, its exit code and where its output is.
        """
        for name, process in self._running.items():
            code = process.poll()
            if code is not None:
                raise EngineError(
                    f"{name} ended by itself with code {code}; its output is in {self.log(name)}"
                )

    def stop(self, patience_s: float = 10.0) -> None:
        """End every process and whatever each of them started.

        The first one goes last: the others say goodbye to it.
        """
        names = list(self._running)
        for group in (names[1:], names[:1]):
            for name in group:
                self._signal(name, signal.SIGTERM)
            deadline = time.monotonic() + patience_s
            for name in group:
                self._wait(name, deadline)
                # Also when it ended in good order: its children may be deaf to SIGTERM.
                self._signal(name, signal.SIGKILL)
                self._running.pop(name).wait()

    def _signal(self, name: str, number: int) -> None:
        try:
            # The process leads its session, so its id names the group of all it started.
            os.killpg(self._running[name].pid, number)
        except (ProcessLookupError, PermissionError):
            return  # the group is empty, or (macOS) holds only what has ended

    def _wait(self, name: str, deadline: float) -> None:
        while self._running[name].poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)


@contextmanager
def processes(log_dir: Path) -> Iterator[Processes]:
    """Hold the processes of one run; whatever happens inside, they are gone afterwards."""
    log_dir.mkdir(parents=True, exist_ok=True)
    running = Processes(log_dir)
    try:
        yield running
    finally:
        running.stop()
