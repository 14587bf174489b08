"""A consortium in miniature: its supervised server, in a thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from deployment.flower import HOST
from deployment.processes import free_ports
from protocol.errors import ConcorsError
from server.consortium import Consortium, Settings
from server.founding import create
from server.supervisor import supervise


def new_consortium(root: Path, **settings: object) -> Consortium:
    """Make a consortium on the loopback address, at a port that is free now."""
    (port,) = free_ports(1)
    values = {"name": "cordis", "address": f"{HOST}:{port}", "listen": HOST, **settings}
    return create(root, Settings.model_validate(values), now=datetime.now(UTC))


class Server:
    """``concors-server start`` in a thread."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self.said: list[str] = []
        self.error: ConcorsError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            supervise(self.consortium, stop=self._stop, say=self.said.append)
        except ConcorsError as error:
            self.error = error

    def close(self) -> None:
        """End it in order."""
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def wait_until_up(self) -> None:
        """Wait until it answers and has registered its members."""
        self.wait(lambda: (self.consortium.root / "running" / "status.json").exists())

    def wait(self, done: Callable[[], bool], timeout_s: float = 240.0) -> None:
        """Wait for something, as long as the supervisor is there."""
        wait_until(lambda: not self._thread.is_alive() or done(), timeout_s)
        if not self._thread.is_alive():
            raise self.error or AssertionError("the supervisor ended")


def wait_until(done: Callable[[], bool], timeout_s: float = 240.0) -> None:
    """Wait until something is so; fail when it does not come to that."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@contextmanager
def served(consortium: Consortium) -> Iterator[Server]:
    """Have a consortium served."""
    server = Server(consortium)
    try:
        yield server
    finally:
        server.close()


def find_process(*words: str) -> int | None:
    """Return the id of the process whose command line holds all of these words."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if all(word in line for word in words):
                return int(path.name)
    return None
