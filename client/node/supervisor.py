"""``concors-client start``: keeps a hospital's node running, in the foreground.

Two processes and what is between them: Flower's SuperNode, which calls the server, and the worker,
which does the work; this process is the gatekeeper. A SuperNode that is lost is started anew, after
a pause that grows; the worker is replaced by itself (`client.node.jobs`). When this process ends,
by whatever cause, nothing of it is left.
"""

import fcntl
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import httpx

from client.membership import load_welcome, node_directory
from client.node.answering import Answering
from client.node.arrivals import VARIABLE, Arrivals
from client.node.gatekeeper import Answer, Gatekeeper
from client.node.jobs import Jobs
from client.node.pulling import soon
from client.node.worker_process import WorkerProcess
from client.sentences import errors
from deployment.flower import HOST, ONE_AT_A_TIME, variables
from deployment.logs import configure
from deployment.private_files import write_private
from deployment.processes import free_ports, processes, wait_for_port
from protocol.errors import ConcorsError, ConfigError, EngineError

__all__ = ["main", "run_node"]

# -P: what lies in the working directory is no code of ours.
WORKER = (sys.executable, "-P", "-m", "client.node.worker")
SUPERNODE = (sys.executable, "-P", "-m", "client.node.supernode")
UP_S = 60.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
log = logging.getLogger("concors.node")


def run_node(site_dir: Path, *, worker: Sequence[str] = WORKER) -> None:
    """Run a hospital's node until the process is asked to end (SIGTERM, Ctrl-C).

    Parameters
    ----------
    site_dir : Path
        The hospital; it must have joined a consortium.
    worker : sequence of str
        The command that starts a worker.

    Raises
    ------
    PaperError
        If the hospital has joined no consortium, or its papers are not valid.
    ConfigError
        If a node of this hospital runs already.
    """
    site_dir = site_dir.resolve()
    load_welcome(site_dir)
    folder = node_directory(site_dir)
    os.umask(0o077)
    soon()
    with _alone(folder), suppress(_Stop), _stopped_by_signals():
        environment = variables(folder / "flower")
        logs = folder / "logs"
        with WorkerProcess(worker, site_dir, logs, environment) as process:
            answering = Answering(site_dir, process)
            with Jobs(process, answering.keep) as jobs:
                _for_ever(site_dir, lambda message, check: answering.answer(jobs, message, check))


class _NodeLost(BaseException):
    """The SuperNode ended; no error of the work under way, and nothing may take it for one."""


class _Stop(BaseException):
    """Somebody asked this process to end; no error, and nothing on the way may take it for one."""


def _for_ever(site_dir: Path, answer: Answer) -> None:
    pause_s = SHORTEST_PAUSE_S
    while True:
        began = time.monotonic()
        try:
            _one_connection(site_dir, answer)
        except _NodeLost as error:
            log.warning("the SuperNode was lost: %s", error)
        except (httpx.HTTPError, RuntimeError, OSError, ValueError) as error:
            log.warning("the gatekeeper was lost (%s)", type(error).__name__)
        except ConcorsError:
            raise
        except Exception as error:
            # Whatever else Flower's modules raise: a node that ended would be gone for days.
            log.warning("the gatekeeper was lost unexpectedly", exc_info=error)
        if time.monotonic() - began > LONGEST_PAUSE_S:
            pause_s = SHORTEST_PAUSE_S
        log.info("it is started anew in %.0f s", pause_s)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _one_connection(site_dir: Path, answer: Answer) -> None:
    """Start a SuperNode and serve it until it or the gatekeeper is lost."""
    folder = node_directory(site_dir)
    welcome = load_welcome(site_dir)
    secret = write_private(folder / "node.secret", secrets.token_bytes(32))
    (port,) = free_ports(1)
    command = [*SUPERNODE, "--superlink", welcome["address"]]
    command += ["--root-certificates", str(folder / "ca.crt")]
    command += ["--auth-supernode-private-key", str(folder / "node.key")]
    command += ["--host", HOST, "--port", str(port)]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]
    arrived = folder / "arrived"
    arrivals = Arrivals(arrived)
    own = {**variables(folder / "flower"), **ONE_AT_A_TIME, VARIABLE: str(arrived)}
    # Nothing is installed at run time: a SuperNode does so only when it is told to.
    with processes(folder / "logs") as running:
        running.start("supernode", command, variables=own, cwd=folder)

        def check() -> None:
            try:
                running.check()
            except EngineError as error:
                raise _NodeLost(error.sentence) from error

        if not wait_for_port(port, UP_S, check):
            raise _NodeLost("it did not come up; supernode.log of this node says why.")
        log.info("the node of %s serves %s", welcome["site"], welcome["consortium"])
        Gatekeeper(f"{HOST}:{port}", secret, arrivals, answer).run(check)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the hospital's node for this process."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                "A node of this hospital runs already on this machine; stop it before starting "
                "another one."
            ) from error
        yield


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turn the signals that ask a process to end into one exception, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise _Stop

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def main() -> None:
    """Run the node of the hospital that the command line names."""
    configure()
    try:
        run_node(Path(sys.argv[1]))
    except ConcorsError as error:
        errors.print(f"[bold red]{error.code}[/] {error.sentence}", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
