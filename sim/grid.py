"""Flower's Grid in one process: the real ``ServerApp`` code meets the real ``ClientApp`` code.

No network, no Ray, no serialisation of the numbers. Each node has its own ``Context``, whose
``state`` lives as long as the grid, as it does in a SuperNode's memory; an exception in the app
comes back as the same error reply as in deployment.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from protocol.errors import ConfigError
from sim.allocator import keep_freed_memory

__all__ = ["LocalGrid"]

RUN_ID = 1
FIRST_NODE_ID = SUPERLINK_NODE_ID + 1
Value = bool | float | int | str


def _own_copy(content: RecordDict) -> RecordDict:
    """Return records that are the client's own; the arrays in them stay shared.

    One request goes to every node, and an app may write into it; in deployment each node has its
    own copy, so here too one app must not see another's changes. An array's bytes are immutable.
    """
    copy = RecordDict()
    for name, record in content.items():
        own = type(record)()
        own.update(record)
        copy[name] = own
    return copy


class LocalGrid(Grid):
    """A Grid over one ``ClientApp`` and as many nodes as there are configurations.

    With one worker an app runs when its reply is pulled, so that no reply exists before it is
    asked for. With more, the next ``workers`` messages run ahead in threads, in the order in which
    they were pushed, and at most so many replies wait.

    Parameters
    ----------
    client_app : ClientApp
        The app every node runs.
    node_configs : sequence of mapping
        ``context.node_config`` of each node; node ids count from 2 (1 is the SuperLink's).
    workers : int
        Apps that may run at once.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[Mapping[str, Value]],
        workers: int = 1,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"LocalGrid has {workers} workers, expected 1 or more; give one.")
        self._app = client_app
        self._contexts = {
            FIRST_NODE_ID + index: Context(
                run_id=RUN_ID,
                node_id=FIRST_NODE_ID + index,
                node_config=dict(config),
                state=RecordDict(),
                run_config={},
            )
            for index, config in enumerate(node_configs)
        }
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None
        self._queue: OrderedDict[str, Message] = OrderedDict()
        self._running: dict[str, Future[Message]] = {}
        self._num_pushed = 0
        self._run = Run.create_empty(RUN_ID)
        keep_freed_memory()
        # Flower refuses to build a Message outside a task; in deployment its launcher sets these.
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = RUN_ID
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> None:
        """Set what `run` returns."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run, empty but for its id."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message (Flower deprecates this in favour of ``Message``)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the id of every node."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages and return their ids."""
        ids = []
        for message in messages:
            self._num_pushed += 1
            message_id = f"message-{self._num_pushed}"
            message.metadata.__dict__["_message_id"] = message_id
            self._queue[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to those of the messages that are still waiting, in that order."""
        return [self._reply(i) for i in message_ids if i in self._queue or i in self._running]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push messages and return all replies; nothing in one process can time out."""
        return self.pull_messages(self.push_messages(messages))

    def _reply(self, message_id: str) -> Message:
        if self._pool is None:
            return self._execute(self._queue.pop(message_id))
        if message_id in self._queue:
            self._start(message_id)
        while self._queue and len(self._running) < self._workers:
            self._start(next(iter(self._queue)))
        return self._running.pop(message_id).result()

    def _start(self, message_id: str) -> None:
        if self._pool is not None:
            message = self._queue.pop(message_id)
            self._running[message_id] = self._pool.submit(self._execute, message)

    def _execute(self, message: Message) -> Message:
        context = self._contexts.get(message.metadata.dst_node_id)
        if context is None:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "No such node"), reply_to=message)
        message.content = _own_copy(message.content)
        try:
            return self._app(message, context)
        except Exception as error:  # noqa: BLE001 - whatever an app raises is an error reply
            reason = f"{type(error)}:<'{error}'>"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
