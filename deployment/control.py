"""The coordinator's hand on a SuperLink: register hospitals, submit a study, wait for its end.

This is what ``flwr supernode register``, ``flwr run`` and ``flwr list`` do, through the same
interface of Flower; each of those commands would cost more than a second of start-up, and waiting
for a study means asking often.
"""

import hashlib
import hmac
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from deployment.flower import environment, first_line, no_proxy
from protocol.errors import EngineError

__all__ = ["TOKEN_HEADER", "Control", "Node", "token_of"]

GOODBYE_S = 0.5
TOKEN_HEADER = "concors-token"  # noqa: S105 - its name
# Newest first; those that are not over are few.
MAX_RUNS = 1000
# What Flower puts before the text of the server app's exception.
DETAILS_PREFIX = "ServerApp failed with exception: "


def token_of(secret: bytes) -> str:
    """Return the token that opens the control interface, from the secret of the SuperLink."""
    return hmac.new(secret, b"concors control", hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Node:
    """A hospital's node as the SuperLink knows it.

    Attributes
    ----------
    status : str
        ``registered`` (never seen), ``online``, ``offline`` or ``unregistered``.
    last_seen : str
        When it last connected or was found gone, ISO 8601, or empty.
    """

    node_id: int
    name: str
    public_pem: bytes
    status: str
    last_seen: str


class _Token:
    """Shows the token with every request."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[TOKEN_HEADER] = self._token
        return call_next(context)


class Control:
    """A connection to the control interface of one SuperLink, over TLS.

    Parameters
    ----------
    address : str
        ``host:port`` of the SuperLink.
    authority : Path
        Certificate of the authority that signed the SuperLink's certificate, PEM.
    check : callable
        Called at every look; raises when going on waiting makes no sense.
    secret : bytes, optional
        The SuperLink's secret, where its control interface asks for a token.
    """

    def __init__(
        self,
        address: str,
        authority: Path,
        check: Callable[[], None] = lambda: None,
        secret: bytes | None = None,
    ) -> None:
        self._address = address
        self._check = check
        interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
        if secret is not None:
            interceptors.append(_Token(token_of(secret)))
        with environment(no_proxy()):
            self._client = ControlHttpClient.from_server_address(
                server_address=address,
                insecure=False,
                root_certificates=authority.read_bytes(),
                interceptors=interceptors,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        if isinstance(error, httpx.HTTPError):
            # Most likely a process has just died: give it the moment it needs, and name it.
            time.sleep(GOODBYE_S)
            self._check()
            raise EngineError(
                f"The SuperLink at {self._address} refused a request or went silent "
                f"({type(error).__name__}: {first_line(str(error))}); look at its log."
            ) from error

    def wait_until_up(self, timeout_s: float) -> None:
        """Wait until the SuperLink answers.

        Raises
        ------
        EngineError
            When it does not within ``timeout_s`` seconds.
        """

        def answers() -> bool:
            try:
                self._client.ListNodes(ListNodesRequest())
            except httpx.TransportError:
                return False
            return True

        if not self._wait(answers, timeout_s):
            raise EngineError(
                f"The SuperLink did not answer at {self._address} within {timeout_s:g} s; "
                "look at its log or allow more time."
            )

    def register(self, public_pem: bytes, name: str) -> int:
        """Allow the holder of a key to join; return the node's id."""
        reply = self._client.RegisterNode(RegisterNodeRequest(public_key=public_pem, name=name))
        return int(reply.node_id)

    def unregister(self, node_id: int) -> None:
        """Exclude a node: nothing it asks from now on is answered."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def nodes(self) -> list[Node]:
        """Return every node that was ever registered."""
        return [
            Node(
                int(node.node_id),
                str(node.name),
                bytes(node.public_key),
                str(node.status),
                max(str(node.last_activated_at), str(node.last_deactivated_at)),
            )
            for node in self._client.ListNodes(ListNodesRequest()).nodes_info
        ]

    def wait_for_nodes(self, count: int, timeout_s: float) -> None:
        """Wait until ``count`` SuperNodes are connected.

        Raises
        ------
        EngineError
            When fewer are within ``timeout_s`` seconds, with their number.
        """
        online = 0

        def all_online() -> bool:
            nonlocal online
            nodes = self._client.ListNodes(ListNodesRequest()).nodes_info
            online = sum(node.status == "online" for node in nodes)
            return online >= count

        if not self._wait(all_online, timeout_s):
            raise EngineError(
                f"{online} of {count} hospitals connected within {timeout_s:g} s; "
                "look at the logs of the others or allow more time."
            )

    def submit(self, app_dir: Path, run_config: Mapping[str, str]) -> int:
        """Submit the app in a directory with its run configuration; return the run's id."""
        with warnings.catch_warnings():
            # flwr 1.41 asks its pattern library for a name that the library calls deprecated.
            warnings.filterwarnings("ignore", "GitWildMatchPattern", DeprecationWarning)
            content = build_fab_from_disk(app_dir)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(run_config))
        )
        return int(self._client.StartRun(request).run_id)

    def wait_for_run(self, run_id: int, timeout_s: float, log: Path) -> None:
        """Wait until a run is over; stop it when it takes too long.

        Parameters
        ----------
        run_id : int
            What ``submit`` returned.
        timeout_s : float
            Seconds to wait.
        log : Path
            File that receives the server app's output when the run is over.

        Raises
        ------
        EngineError
            When it failed, with the server's sentence, or was stopped, or took too long.
        """
        status = self._status(run_id)

        def over() -> bool:
            nonlocal status
            status = self._status(run_id)
            return bool(status.status == Status.FINISHED)

        if not self._wait(over, timeout_s, every_s=1.0):
            self._client.StopRun(StopRunRequest(run_id=run_id))
            self._save_log(run_id, log)
            raise EngineError(
                f"The study was not finished after {timeout_s:g} s and was stopped; "
                "allow more time and start it again to resume it."
            )
        self._save_log(run_id, log)
        if status.sub_status != SubStatus.COMPLETED:
            reason = first_line(str(status.details).removeprefix(DETAILS_PREFIX))
            raise EngineError(f"{reason} The server's log is {log}.")

    def unfinished(self) -> set[int]:
        """Return the ids of the runs that are not over."""
        runs = self._client.ListRuns(ListRunsRequest(limit=MAX_RUNS)).run_dict
        return {int(i) for i, run in runs.items() if run.status.status != Status.FINISHED}

    def stop(self, run_id: int) -> None:
        """Stop a run; one that is over or unknown stays as it is."""
        if run_id in self.unfinished():
            self._client.StopRun(StopRunRequest(run_id=run_id))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _save_log(self, run_id: int, log: Path) -> None:
        request = StreamLogsRequest(run_id=run_id, after_timestamp=0.0)
        with log.open("w", encoding="utf-8") as file:
            # The stream of a run that is over ends by itself.
            for part in self._client.StreamLogs(request):
                file.write(part.log_output)

    def _status(self, run_id: int) -> Any:
        return self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id].status

    def _wait(self, done: Callable[[], bool], timeout_s: float, every_s: float = 0.25) -> bool:
        deadline = time.monotonic() + timeout_s
        while not done():
            self._check()
            if time.monotonic() > deadline:
                return False
            time.sleep(every_s)
        return True
