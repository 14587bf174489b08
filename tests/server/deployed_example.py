"""A consortium in miniature: a supervised server in a thread, hospitals' nodes as real processes.

The nodes' SuperNodes are those of a hospital; what they are asked is answered in this process, by
the real client app, so that nothing has to load torch again.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
from flwr.app import Context, Message
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.app import app as client_app
from deployment.certificates import new_key
from deployment.flower import HOST, variables
from deployment.node_keys import write_node_key
from deployment.papers import make_request
from deployment.processes import free_ports
from deployment.tasks import Tasks
from protocol.errors import ConcorsError
from protocol.manifest_message import MANIFEST
from protocol.payload import Answer
from server.admission import admit
from server.consortium import Consortium, Settings, create
from server.run_state import State, read
from server.supervisor import supervise

# The identity of the task at hand is one for the whole process.
ONE_AT_A_TIME = threading.Lock()
Decide = Callable[[], str]


def new_consortium(root: Path, **settings: object) -> Consortium:
    """Make a consortium on the loopback address, at a port that is free now."""
    (port,) = free_ports(1)
    values = {"name": "cordis", "address": f"{HOST}:{port}", "listen": HOST, **settings}
    return create(root, Settings.model_validate(values), now=datetime.now(UTC))


def join_consortium(consortium: Consortium, name: str, key_file: Path) -> None:
    """Make a node key and have its request admitted."""
    key = new_key()
    write_node_key(key_file, key)
    request = make_request(name, key, version="0.1.0", now=datetime.now(UTC))
    admit(consortium, request, replace_key=False, now=datetime.now(UTC))


class Node:
    """A hospital's node: its SuperNode, and a thread that answers what it is asked."""

    def __init__(
        self, consortium: Consortium, site: Path, work: Path, decide: Decide = lambda: "approved"
    ) -> None:
        self._decide = decide
        self._work = work
        self._secret = os.urandom(32)
        (self._port,) = free_ports(1)
        work.mkdir(exist_ok=True)
        (work / "secret").write_bytes(self._secret)
        (work / "node.toml").write_text(f'site = "{site}"\n')
        command = [sys.executable, "-m", "client.node.supernode"]
        command += ["--superlink", consortium.settings.address]
        command += ["--root-certificates", str(consortium.authority)]
        command += ["--auth-supernode-private-key", str(site / "node.key")]
        command += ["--host", HOST, "--port", str(self._port), "--isolation", "process"]
        command += ["--superexec-auth-secret-file", str(work / "secret")]
        self._command = [*command, "--node-config", str(work / "node.toml")]
        self._stop = threading.Event()
        self.start()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def start(self) -> None:
        """Start the SuperNode."""
        with (self._work / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                env=variables(self._work / "home"),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def close(self) -> None:
        """End both."""
        self._stop.set()
        self._thread.join()
        self.process.kill()
        self.process.wait()

    def _serve(self) -> None:
        tasks = Tasks(f"{HOST}:{self._port}", None, self._secret, "flwr-clientapp")
        while not self._stop.wait(0.1):
            # The node is not up yet, or has just been killed.
            with suppress(httpx.HTTPError):
                if (task := tasks.acquire()) is not None:
                    self._answer(task.token)
        tasks.close()

    def _answer(self, token: str) -> None:
        client = RuntimeHttpClient.from_server_address(
            server_address=f"{HOST}:{self._port}",
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                RuntimeTokenHttpInterceptor(token),
            ],
        )
        with closing(client), ONE_AT_A_TIME:
            message, context, _, _ = pull_task_input(client)
            push_message(client, self._reply(message, context), context)
            push_task_output(client, context, "completed", "")

    def _reply(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type == MANIFEST:
            decision = Answer({"decision": self._decide()})
            return Message(decision.to_records(), reply_to=message)
        return client_app(message, context)


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

    def wait_for_end(self, folder: Path) -> State:
        """Wait until a run is not running any more."""
        self.wait(lambda: read(folder).state != "running" and not read(folder).flower_run)
        return read(folder)


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
