"""What stands between the SuperNode and the worker, in the place of Flower's SuperExec.

It takes each message, lets the installed app answer it, and hands the reply back. The bundle of
code that the server distributes is neither unpacked nor imported. Whatever happens to the worker,
there is a reply, so that the SuperNode goes on to the next message.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender

# None of this is public; it is what flower-superexec and flwr-clientapp of the pinned version use.
from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.node.arrivals import Arrivals
from deployment.flower import environment, no_proxy
from protocol.errors import PolicyError
from protocol.names import frozen
from protocol.refusal import Refusal

__all__ = ["Answer", "Gatekeeper"]

# The SuperNode tells of what arrives (`client.node.arrivals`); this is for what it did not tell.
LOOK_S = 30.0
ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})
# Taken up, lest one of another kind stay at the node for ever; answered by the app, or refused.
KINDS = (TaskType.CLIENT_APP, TaskType.AGENT_APP)
Answer = Callable[[Message, Callable[[], None]], Message]
log = logging.getLogger("concors.node")


class Gatekeeper:
    """The one that serves one SuperNode.

    Parameters
    ----------
    address : str
        ``host:port`` of the SuperNode's runtime interface, on loopback.
    secret : Path
        The secret it shares with the SuperNode.
    arrivals : Arrivals
        Of the SuperNode.
    answer : callable
        ``answer(message, check)`` returns the reply and calls ``check`` again and again meanwhile.
    """

    def __init__(self, address: str, secret: Path, arrivals: Arrivals, answer: Answer) -> None:
        self._address = address
        self._arrivals = arrivals
        self._secret = secret.read_bytes()
        self._answer = answer

    def run(self, check: Callable[[], None]) -> None:
        """Serve until ``check`` raises.

        Raises
        ------
        httpx.HTTPError
            If the SuperNode refuses or does not answer.
        """
        auth = SuperExecAuthHttpInterceptor(master_secret=self._secret, protected_methods=ACQUIRE)
        with self._client(auth) as client:
            while True:
                check()
                wanted = AcquireTaskRequest(supported_task_types=list(KINDS))
                given = client.AcquireTask(wanted)
                if given.HasField("task") and given.token:
                    self._serve(given.task.type, given.token, check)
                else:
                    self._arrivals.wait(LOOK_S, check)

    def _serve(self, kind: str, token: str, check: Callable[[], None]) -> None:
        with self._client(RuntimeTokenHttpInterceptor(token)) as client, _alive(client):
            message, context, _, _ = pull_task_input(client)
            if message.has_content():
                message.content = frozen(message.content)
            log.info("asked for %s", message.metadata.message_type)
            if kind == TaskType.CLIENT_APP:
                reply = self._answer(message, check)
            else:
                refused = PolicyError("A hospital's node runs no app but the one installed there.")
                reply = Message(Refusal.of(refused).to_error(), reply_to=message)
            _hand_back(client, reply, context)

    @contextmanager
    def _client(self, interceptor: object) -> Iterator[RuntimeHttpClient]:
        version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
        # No invoker that tries again: Flower's ends this process by a signal when it is refused.
        with environment(no_proxy()):
            client = RuntimeHttpClient.from_server_address(
                server_address=self._address,
                insecure=True,
                root_certificates=None,
                interceptors=[version, interceptor],
            )
        try:
            yield client
        finally:
            client.close()


def _hand_back(client: RuntimeHttpClient, reply: Message, context: Context) -> None:
    failed = reply.has_error()
    # Flower would hash the whole of it again each time it asks for its name.
    with no_object_id_recompute():
        try:
            push_message(client, reply, context)
        except ObjectPushError:
            # Its run has ended meanwhile, and with it the place that was kept for it.
            log.warning("the reply is not wanted any more")
            failed = True
    push_task_output(client, context, SubStatus.FAILED if failed else SubStatus.COMPLETED, "")


@contextmanager
def _alive(client: RuntimeHttpClient) -> Iterator[None]:
    """Tell the SuperNode, as long as this lasts, that its task is being worked on."""

    def beat() -> bool:
        # Flower's own function ends the process when the node knows nothing of the task any more.
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except (httpx.HTTPError, RuntimeError):
            return False
        return True

    sender = HeartbeatSender(beat)
    sender.start()
    try:
        yield
    finally:
        # It may be in the middle of a call to a node that is gone; nobody waits for that.
        sender._stop_event.set()
