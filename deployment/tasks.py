"""Taking work from Flower's runtime interface, in place of ``flower-superexec``.

Flower's own program takes every kind of work, also such as talks to services on the internet, and
does not notice when what it started dies. Whoever takes work here names its kind and starts the
program himself.
"""

from dataclasses import dataclass
from pathlib import Path

from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from deployment.flower import environment, no_proxy

__all__ = ["SERVER_APP", "Task", "Tasks"]

SERVER_APP = "flwr-serverapp"
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes
    ----------
    run_id : int
        Flower's id of the run it belongs to.
    token : str
        By which its process shows that it has this work.
    """

    run_id: int
    token: str


class Tasks:
    """A connection to a runtime interface that gives out one kind of work.

    Parameters
    ----------
    address : str
        ``host:port`` of the SuperLink's, or of a SuperNode's, interface.
    authority : Path or None
        Certificate of the authority, PEM; None where the interface has no TLS.
    secret : bytes
        What the interface was started with.
    kind : str
        For example `SERVER_APP`.
    """

    def __init__(self, address: str, authority: Path | None, secret: bytes, kind: str) -> None:
        self._kind = kind
        authentication = SuperExecAuthHttpInterceptor(
            master_secret=secret, protected_methods=frozenset({ACQUIRE})
        )
        with environment(no_proxy()):
            self._client = RuntimeHttpClient.from_server_address(
                server_address=address,
                insecure=authority is None,
                root_certificates=None if authority is None else authority.read_bytes(),
                interceptors=[
                    RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                    authentication,
                ],
            )

    def acquire(self) -> Task | None:
        """Return the oldest piece of work that waits, if any; it is then ours.

        Raises
        ------
        httpx.HTTPError
            If the interface does not answer, or refuses.
        """
        reply = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[self._kind]))
        if not reply.HasField("task") or not reply.token:
            return None
        return Task(int(reply.task.run_id), str(reply.token))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
