"""Real processes that cannot outlive the study: start, watch, stop.

Every process leads its own session, so that one signal reaches it and whatever it started, and so
that Ctrl-C in a terminal reaches only us, who then stop the rest in order. If we are killed without
a chance to clean up, an undertaker does it: a tiny process that knows every session.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from deployment.flower import HOST
from protocol.errors import EngineError

__all__ = ["Processes", "free_ports", "processes", "wait_for_port"]

# Reads which sessions begin (+) and end (-) until our end of the pipe closes, then ends the rest.
# The kernel's own "tell me when my parent dies" is no match for it: it reaches only direct
# children, and Flower's client app, told politely that its SuperNode is gone, waits for it.
UNDERTAKER = """
import os, signal, sys
sessions = set()
for line in sys.stdin:
    (sessions.add if line[0] == "+" else sessions.discard)(int(line[1:]))
for session in sessions:
    try:
        os.killpg(session, signal.SIGKILL)
    except OSError:
        pass
"""
MAX_WORDS = 300
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def free_ports(count: int, first: int = 0) -> list[int]:
    """Find different TCP ports that are free on the loopback address at this moment.

    Parameters
    ----------
    count : int
        How many.
    first : int
        The first of them, when it is not to be chosen freely; 0 otherwise.

    Raises
    ------
    EngineError
        When ``first`` is in use.
    """
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for number, each in enumerate(sockets):
            # As the servers do: a port whose last connection is only being wound up is free.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((HOST, 0 if number else first))
        return [each.getsockname()[1] for each in sockets]
    except OSError as error:
        raise EngineError(
            f"Port {first} on {HOST} cannot be used ({error.strerror}); "
            "give another port, or 0 for any that is free."
        ) from error
    finally:
        for each in sockets:
            each.close()


def wait_for_port(port: int, timeout_s: float, check: Callable[[], None] = lambda: None) -> bool:
    """Say whether a loopback port was answered in time; ``check`` may raise to end the waiting."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        check()
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            return True
        time.sleep(0.1)
    return False


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
        self._undertaker = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", "-c", UNDERTAKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(
        self, name: str, command: Sequence[str], *, variables: Mapping[str, str], cwd: Path
    ) -> None:
        """Start one process under a name, with exactly these environment variables.

        The output of the one that had this name before is kept as ``<name>.log.1``.

        Raises
        ------
        EngineError
            When the program cannot be started.
        """
        if self.log(name).exists():
            self.log(name).replace(self._log_dir / f"{name}.log.1")
        with self.log(name).open("wb") as log:
            try:
                self._running[name] = subprocess.Popen(  # noqa: S603 - our own command lines
                    list(command),
                    env=dict(variables),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineError(
                    f"{name} could not be started ({error.strerror}); check the installation."
                ) from error
        self._tell(f"+{self._running[name].pid}")

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
                    f"{name} ended by itself with code {code} "
                    f"({_last_words(self.log(name))}); the rest is in {self.log(name)}."
                )

    def names(self) -> list[str]:
        """Return the names of the processes, those that have ended included, until `end`."""
        return list(self._running)

    def exit_code(self, name: str) -> int | None:
        """Return how a process ended (minus the signal's number), None while it runs."""
        return self._running[name].poll()

    def last_words(self, name: str) -> str:
        """Return what a process said last, from its last error on, in one line."""
        return _last_words(self.log(name))

    def end(self, names: Sequence[str], patience_s: float = 10.0) -> None:
        """End some processes and whatever they started; their names are free again."""
        for name in names:
            self._signal(name, signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        for name in names:
            self._wait(name, deadline)
            # Also when it ended in good order: its children may be deaf to SIGTERM.
            self._signal(name, signal.SIGKILL)
            process = self._running.pop(name)
            process.wait()
            self._tell(f"-{process.pid}")

    def stop(self, patience_s: float = 10.0) -> None:
        """End every process and whatever each of them started.

        The first one goes last: the others say goodbye to it.
        """
        names = list(self._running)
        for group in (names[1:], names[:1]):
            self.end(group, patience_s)

    def close(self) -> None:
        """End every process, then the undertaker, who has nothing left to do."""
        try:
            self.stop()
        finally:
            self._undertaker.communicate()

    def _tell(self, line: str) -> None:
        pipe = self._undertaker.stdin
        # It is only an insurance: if somebody ended it, the study goes on without.
        with suppress(BrokenPipeError):
            if pipe is not None:
                pipe.write(f"{line}\n".encode())
                pipe.flush()

    def _signal(self, name: str, number: int) -> None:
        try:
            # The process leads its session, so its id names the group of all it started.
            os.killpg(self._running[name].pid, number)
        except (ProcessLookupError, PermissionError):
            return  # the group is empty, or (macOS) holds only what has ended

    def _wait(self, name: str, deadline: float) -> None:
        while self._running[name].poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)


def _last_words(log: Path) -> str:
    """Return what a log says from its last error on, or else its last line, in one line."""
    text = COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace"))
    # Flower ends with an address to read more at and with what it closes; neither is the reason.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if "http" not in line and "INFO" not in line]
    errors = [number for number, line in enumerate(lines) if "ERROR" in line]
    words = " ".join(lines[errors[-1] if errors else -1 :]) or "without a word"
    return words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + "..."


@contextmanager
def processes(log_dir: Path) -> Iterator[Processes]:
    """Hold the processes of one run; whatever happens inside, they are gone afterwards."""
    log_dir.mkdir(parents=True, exist_ok=True)
    running = Processes(log_dir)
    try:
        yield running
    finally:
        running.close()
