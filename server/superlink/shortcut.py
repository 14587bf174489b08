"""The short way through Flower's server for the requests that a round is made of.

As it comes, the server answered some 25 requests a second on two cores, however small they were:
each passes ten layers that hand it on through queues and threads, and makes five transactions, and
whoever finds the database busy sleeps and looks again. Here a request is read whole, handed to one
thread, and answered by Flower's own checks and functions within one transaction.

Whatever goes wrong in it undoes that transaction, and the request goes the long way, which does it
again and words the refusal: so nothing is accepted here that is refused there, but for what is not
looked at here, the content type and, of the server app on this machine, its version of flwr.

A node that asks for a message or a part of one while it is not there is kept waiting for it, for a
moment: it comes at once, and the node asks a tenth as often for messages. The server app is not
kept waiting: it has a deadline, and would be held beyond it. What is used of flwr is not public; it
is pinned to one version.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, MutableMapping
from typing import Any

import anyio
import anyio.to_thread
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.protobuf.translation import PROTOBUF_MEDIA_TYPE, PROTOBUF_REQUEST_TYPES
from flwr.supercore.servicer.runtime import runtime_handlers as task_handlers
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from flwr.superlink.servicer.fleet import fleet_handlers as fleet
from flwr.superlink.servicer.runtime import runtime_handlers as runtime
from starlette.requests import Request

from server.superlink.doorbells import Doorbells
from server.superlink.state import give_again

__all__ = ["shortened"]

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Event, Receive, Send], Awaitable[None]]

FLEET, RUNTIME = "/v1/fleet/", "/v1/runtime/"
PULL, PUSH = f"{FLEET}pull-messages", f"{RUNTIME}push-messages"
PULL_OBJECT, PUSH_OBJECT = f"{FLEET}pull-object", f"{RUNTIME}push-object"


def _messages(asked: Any, state: SqlLinkState) -> Any:
    answer = fleet.pull_messages(asked, state, state.object_store)
    if not answer.messages_list and give_again(state, asked.node.node_id):
        answer = fleet.pull_messages(asked, state, state.object_store)
    return answer


def _received(asked: Any, state: SqlLinkState) -> Any:
    return fleet.confirm_message_received(asked, state, state.object_store)


# What hospitals ask in every round; the node has been authenticated before.
OF_NODES: Mapping[str, Callable[[Any, SqlLinkState], Any]] = {
    "send-node-heartbeat": fleet.send_node_heartbeat,
    "pull-messages": _messages,
    "pull-object": fleet.pull_object,
    "confirm-message-received": _received,
    "push-messages": fleet.push_messages,
    "push-object": fleet.push_object,
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
# How long a node that asks for what is not there is kept waiting.
HOLD_S = 2.0


def shortened(app: Any) -> App:
    """Return Flower's application with the short way before it.

    Parameters
    ----------
    app : FastAPI
        The SuperLink. Requests are read whole, as it reads them itself; those of hospitals are
        bounded before (`server.superlink.gates`).
    """
    threads, bells = anyio.CapacityLimiter(NUM_THREADS), Doorbells()

    async def short(scope: Event, body: bytes) -> bytes:
        path = str(scope["path"])
        asked = PROTOBUF_REQUEST_TYPES["POST", path]()
        asked.ParseFromString(body)

        def look() -> Awaitable[Any]:
            return anyio.to_thread.run_sync(_answer, app, scope, asked, limiter=threads)

        thing = _awaited(path, asked)
        waiting = thing and bells.wait(thing, look, _is_missing, HOLD_S)
        answer = await (waiting or look())
        for brought in _brought(path, asked):
            bells.ring(brought)
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


def _awaited(path: str, asked: Any) -> tuple[str, Hashable] | None:
    """Return what a request waits for if it is not there."""
    if path == PULL:
        return "messages", asked.node.node_id
    return ("object", asked.object_id) if path == PULL_OBJECT else None


def _is_missing(answer: Any) -> bool:
    if isinstance(answer, PullObjectResponse):
        return answer.object_found and not answer.object_available
    return not answer.messages_list


def _brought(path: str, asked: Any) -> Iterable[Hashable]:
    """Return what others may wait for and a request has brought."""
    if path == PUSH:
        return [("messages", message.metadata.dst_node_id) for message in asked.messages_list]
    return [("object", asked.object_id)] if path == PUSH_OBJECT else []


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
    # In a transaction of its own: what it finds is to stay, whatever becomes of the request.
    state._cleanup_expired_task_tokens()
    # A transaction within this one is a part of it.
    with state.session():
        if path.startswith(FLEET):
            authenticate_node(request)
            answer = OF_NODES[path.removeprefix(FLEET)](asked, state)
        else:
            task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
            answer = OF_TASKS[path.removeprefix(RUNTIME)](asked, state, task)
        if path.endswith("/push-object") and not answer.stored:
            # Flower swallows here what went wrong, and relies on its own transaction being undone.
            raise ValueError("an object was not stored")
    return answer


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
