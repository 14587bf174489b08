"""``concors-server start``: one process that keeps the SuperLink and the runs going.

It is what systemd or a terminal holds: everything else is its child, is started again when it
dies, and does not outlive it (`deployment.processes`).
"""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from deployment.bundle import write_bundle
from deployment.control import Control, Node
from deployment.flower import HOST, variables
from deployment.private_files import make_private_dir, write_atomic, write_private
from deployment.processes import free_ports, processes
from deployment.tasks import SERVER_APP, Tasks
from protocol.errors import ConfigError
from server.admission import hospitals
from server.consortium import Consortium
from server.membership import align
from server.run_keeper import RunKeeper
from server.superlink_keeper import SuperLinkKeeper

__all__ = ["STATUS_FILE", "is_supervised", "supervise"]

TICK_S = 0.25
# Seconds between two looks at who is connected.
NODES_S = 2.0
WORK = "running"
STATUS_FILE = "running/status.json"
LOCK = "running/lock"
# Of ours, these name a study and hospitals, and are set for each server app alone.
OWN_VARIABLES = frozenset({"CONCORS_STUDY", "CONCORS_RUN", "CONCORS_SITES"})


def supervise(
    consortium: Consortium,
    *,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Keep a consortium's SuperLink and runs going until ``stop`` is set.

    Parameters
    ----------
    consortium : Consortium
        Whose.
    stop : threading.Event
        Set to end everything in order.
    say : callable
        Tells the operator one line.

    Raises
    ------
    ConfigError
        If it is supervised already.
    EngineError
        If the SuperLink cannot be started at all.
    """
    work = make_private_dir(consortium.root / WORK)
    with _only_one(consortium), processes(consortium.root / "logs") as running:
        secret = secrets.token_bytes(32)
        secret_file = write_private(work / "secret", secret)
        # Chosen once: a server app whose SuperLink was restarted looks for it at the same port.
        (own_port,) = free_ports(1)
        address = f"{HOST}:{own_port}"
        link = SuperLinkKeeper(consortium, running, own_port, secret_file, say)
        keeper = RunKeeper(
            consortium,
            running,
            address=address,
            bundle=write_bundle(work / "bundle"),
            variables=variables(work / "home", OWN_VARIABLES),
            private=work,
            say=say,
        )
        consortium.note("start", address=consortium.settings.address, pid=os.getpid())
        control = Control(address, consortium.authority, secret=secret)
        tasks = Tasks(address, consortium.authority, secret, SERVER_APP)
        try:
            _watch(consortium, link, keeper, control, tasks, stop)
        finally:
            control.close()
            tasks.close()
            # The server apps say goodbye to the SuperLink, so it goes last.
            running.end([name for name in running.names() if name != link.name])
            consortium.note("stopped", pid=os.getpid())


def _watch(
    consortium: Consortium,
    link: SuperLinkKeeper,
    keeper: RunKeeper,
    control: Control,
    tasks: Tasks,
    stop: threading.Event,
) -> None:
    nodes: list[Node] = []
    look_at = 0.0
    while not stop.is_set():
        if link.look():
            try:
                if time.monotonic() >= look_at:
                    nodes = control.nodes()
                    link.answered()
                    # Done at once, so that a key is refused within seconds of being revoked.
                    if align(control, hospitals(consortium), nodes):
                        nodes = control.nodes()
                    _write_status(consortium, nodes)
                    look_at = time.monotonic() + NODES_S
                keeper.look(control, tasks)
            except httpx.HTTPError:
                link.silent()
                look_at = 0.0
        stop.wait(TICK_S)


def _write_status(consortium: Consortium, nodes: list[Node]) -> None:
    """Leave what ``concors-server status`` shows of the nodes."""
    status: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(),
        "nodes": {
            node.public_pem.decode(): {"status": node.status, "last_seen": node.last_seen}
            for node in nodes
        },
    }
    write_atomic(consortium.root / STATUS_FILE, json.dumps(status).encode())


@contextmanager
def _only_one(consortium: Consortium) -> Iterator[None]:
    """Hold the lock that says that this consortium is supervised."""
    descriptor = os.open(consortium.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{consortium.settings.name} is started already; stop that process first."
            ) from error
        yield
    finally:
        os.close(descriptor)


def is_supervised(consortium: Consortium) -> bool:
    """Whether ``concors-server start`` runs for this consortium now."""
    path = consortium.root / LOCK
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
