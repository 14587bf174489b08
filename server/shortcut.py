"""The short way through Flower's server for the requests that a round is made of.

As it comes, the server answered some 25 requests a second on two cores, however small they were:
each passes ten layers that hand it on through queues and threads, and makes five transactions, and
whoever finds the database busy sleeps and looks again. Here a request is read whole, handed to one
thread, and answered by Flower's own checks and functions within one transaction.

Whatever goes wrong in it undoes that transaction, and the request goes the long way, which does it
again and words the refusal: so nothing is accepted here that is refused there.

Who asks for messages and there are none is kept waiting for one, for a moment: it comes to him at
once, and he asks a tenth as often. What is used of flwr is not public; it is pinned to one version.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import anyio.to_thread
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.protobuf.translation import PROTOBUF_MEDIA_TYPE, PROTOBUF_REQUEST_TYPES
from flwr.supercore.servicer.runtime import runtime_handlers as task_handlers
from flwr.supercore.sql_mixin import SqlMixin
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from flwr.superlink.servicer.fleet import fleet_handlers as fleet
from flwr.superlink.servicer.runtime import runtime_handlers as runtime
from sqlalchemy.orm import Session
from starlette.requests import Request

__all__ = ["shortened", "spare_the_database"]

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Event, Receive, Send], Awaitable[None]]
Handler = Callable[[Any, SqlLinkState], Any]

FLEET, RUNTIME = "/v1/fleet/", "/v1/runtime/"
# What hospitals ask in every round; the node has been authenticated before.
OF_NODES: Mapping[str, Handler] = {
    "send-node-heartbeat": lambda asked, state: fleet.send_node_heartbeat(asked, state),
    "pull-messages": lambda asked, state: fleet.pull_messages(asked, state, state.object_store),
    "pull-object": lambda asked, state: fleet.pull_object(asked, state),
    "confirm-message-received": lambda asked, state: fleet.confirm_message_received(
        asked, state, state.object_store
    ),
    "push-messages": lambda asked, state: fleet.push_messages(asked, state),
    "push-object": lambda asked, state: fleet.push_object(asked, state),
}
# What the server app asks, with the token of its task.
OF_TASKS: Mapping[str, Callable[[Any, SqlLinkState, Any], Any]] = {
    "send-task-heartbeat": task_handlers.send_task_heartbeat,
    "get-nodes": runtime.get_nodes,
    "push-messages": runtime.push_messages,
    "push-object": runtime.push_object,
    "pull-messages": runtime.pull_messages,
    "pull-object": runtime.pull_object,
    "confirm-message-received": runtime.confirm_message_received,
}
# The database has one writer; a second thread reads and checks meanwhile.
NUM_THREADS = 2
EXPIRY_LOOK_S = 1.0
# How long who asks for messages is kept waiting: a node, which has nothing else to do, and the
# server app, which has deadlines to watch.
HOLD_NODE_S, HOLD_TASK_S = 2.0, 0.5
# The server app's place among the doorbells; node ids are not 0.
TASKS = 0


def spare_the_database() -> None:
    """Let this process do less in its database, and one thing at a time.

    Threads take turns, instead of finding it busy. What Flower writes in every request, but nobody
    reads (a run's traffic; we count our own), is not written; and tasks that have not been heard of
    are looked for once a second, instead of in every request.
    """
    _take_turns()
    SqlLinkState.store_traffic = lambda *_, **__: None
    look = SqlLinkState._cleanup_expired_task_tokens
    looked_at = -EXPIRY_LOOK_S

    def look_now_and_then(self: SqlLinkState) -> None:
        nonlocal looked_at
        now = time.monotonic()
        if now >= looked_at + EXPIRY_LOOK_S:
            looked_at = now
            look(self)

    SqlLinkState._cleanup_expired_task_tokens = look_now_and_then


def _take_turns() -> None:
    turn = threading.RLock()
    session = SqlMixin.session

    @contextmanager
    def session_in_turn(self: SqlMixin) -> Iterator[Session]:
        with turn, session(self) as opened:
            yield opened

    SqlMixin.session = session_in_turn


def shortened(app: Any) -> App:
    """Return Flower's application with the short way before it.

    Parameters
    ----------
    app : FastAPI
        The SuperLink. Requests to it are read whole: whoever calls this has bounded them.
    """
    threads, bells = anyio.CapacityLimiter(NUM_THREADS), _Doorbells()

    async def short(scope: Event, body: bytes) -> bytes:
        path = str(scope["path"])
        asked = PROTOBUF_REQUEST_TYPES["POST", path]()
        asked.ParseFromString(body)
        whom, hold_s = _waits(path, asked)
        bell = bells.at(whom) if hold_s else None
        answer = await anyio.to_thread.run_sync(_answer, app, scope, asked, limiter=threads)
        if bell is not None and not answer.messages_list:
            with suppress(TimeoutError):
                async with asyncio.timeout(hold_s):
                    await bell.wait()
                answer = await anyio.to_thread.run_sync(_answer, app, scope, asked, limiter=threads)
        for each in _rings_for(path, asked):
            bells.ring(each)
        content: bytes = answer.SerializeToString()
        return content

    async def answer(scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body = await _whole(receive)
        if body is None:
            return
        if _is_short(scope):
            try:
                content = await short(scope, body)
            except Exception:  # noqa: BLE001, S110 - the long way finds the same, and says it
                pass
            else:
                await _send(send, content)
                return
        await app(scope, _again(body, receive), send)

    return answer


class _Doorbells:
    """One for each who waits for messages."""

    def __init__(self) -> None:
        self._bells: dict[int, asyncio.Event] = {}

    def at(self, whom: int) -> asyncio.Event:
        """Return what will be set when there is something for him from now on."""
        return self._bells.setdefault(whom, asyncio.Event())

    def ring(self, whom: int) -> None:
        """Say that there is something for him."""
        bell = self._bells.pop(whom, None)
        if bell is not None:
            bell.set()


def _waits(path: str, asked: Any) -> tuple[int, float]:
    """Return who asks for messages, and how long he may be kept waiting; 0 s for other requests."""
    if path == f"{FLEET}pull-messages":
        return int(asked.node.node_id), HOLD_NODE_S
    return TASKS, HOLD_TASK_S if path == f"{RUNTIME}pull-messages" else 0.0


def _rings_for(path: str, asked: Any) -> list[int]:
    """Return for whom there is something now."""
    if path == f"{RUNTIME}push-messages":
        return [int(message.metadata.dst_node_id) for message in asked.messages_list]
    return [TASKS] if path == f"{FLEET}push-messages" else []


def _is_short(scope: Event) -> bool:
    path = str(scope["path"])
    return scope["method"] == "POST" and (
        (path.startswith(FLEET) and path.removeprefix(FLEET) in OF_NODES)
        or (path.startswith(RUNTIME) and path.removeprefix(RUNTIME) in OF_TASKS)
    )


def _answer(app: Any, scope: Event, asked: Any) -> Any:
    path = str(scope["path"])
    request = Request({**scope, "app": app, "state": {"protobuf_request": asked}})
    state = app.state.linkstate_factory.state()
    # A transaction within this one is a part of it.
    with state.session():
        if path.startswith(FLEET):
            authenticate_node(request)
            return OF_NODES[path.removeprefix(FLEET)](asked, state)
        task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
        return OF_TASKS[path.removeprefix(RUNTIME)](asked, state, task)


async def _send(send: Send, content: bytes) -> None:
    headers = [
        (b"content-type", PROTOBUF_MEDIA_TYPE.encode()),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _whole(receive: Receive) -> bytes | None:
    """Return the body of a request; None if the caller has gone."""
    parts, more = [], True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            return None
        parts.append(event.get("body", b""))
        more = event.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body which was read, in one part."""
    first: list[Event] = [{"type": "http.request", "body": body, "more_body": False}]

    async def once() -> Event:
        return first.pop() if first else await receive()

    return once
