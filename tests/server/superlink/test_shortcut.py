"""The short way answers as the long one does, or leaves it to that."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import Message as FlowerMessage
from flwr.proto.message_pb2 import (
    Metadata,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

from server.superlink import shortcut
from server.superlink.shortcut import OF_NODES, OF_TASKS, shortened

PULL = "/v1/fleet/pull-messages"


async def long_way(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was asked."""
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event["body"], event["more_body"]
    text = json.dumps([scope["path"], body.decode("latin1")]).encode()
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": text})


def ask(app: Any, path: str, content: bytes, method: str = "POST") -> httpx.Response:
    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://a") as client:
            return await client.request(method, path, content=content)

    return asyncio.run(one())


def test_every_short_way_is_one_of_flowers() -> None:
    for prefix, names in (("/v1/fleet/", OF_NODES), ("/v1/runtime/", OF_TASKS)):
        for name in names:
            assert ("POST", prefix + name) in PROTOBUF_REQUEST_TYPES


@pytest.mark.parametrize(
    ("path", "method"),
    [("/v1/fleet/get-run", "POST"), ("/v1/control/start-run", "POST"), (PULL, "GET")],
)
def test_other_requests_go_the_long_way(
    path: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcut, "_answer", lambda *_: pytest.fail("the short way was taken"))
    assert ask(shortened(long_way), path, b"abc", method).json() == [path, "abc"]


def test_what_fails_on_the_short_way_goes_the_long_way_with_the_same_body() -> None:
    # There is no state behind this application, so the short way fails at once.
    body = PullMessagesRequest().SerializeToString() or b""
    reply = ask(shortened(long_way), PULL, body)
    assert (reply.status_code, reply.json()) == (418, [PULL, body.decode("latin1")])


def test_what_succeeds_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcut, "_answer", lambda *_: PullObjectResponse(object_content=b"abc"))
    reply = ask(shortened(long_way), "/v1/fleet/pull-object", b"")
    assert reply.status_code == 200
    assert PullObjectResponse.FromString(reply.content).object_content == b"abc"
    assert reply.headers["content-type"] == "application/protobuf"


class _Superlink:
    """Messages by node, as requests on the short way put and take them."""

    def __init__(self) -> None:
        self.waiting: list[int] = []

    def answer(self, _: Any, scope: Any, asked: Any) -> Any:
        if scope["path"] != PULL:
            self.waiting += [message.metadata.dst_node_id for message in asked.messages_list]
            return PushAppMessagesResponse()
        found = [FlowerMessage() for node in self.waiting if node == asked.node.node_id]
        self.waiting = [node for node in self.waiting if node != asked.node.node_id]
        return PullMessagesResponse(messages_list=found)


Post = Callable[[str, bytes], Awaitable[bytes]]


def told(story: Callable[[Post], Awaitable[Any]], answer: Any, hold_s: float) -> Any:
    """Return what a story ends with, told of an application that answers so and holds so long."""

    async def whole() -> Any:
        transport = httpx.ASGITransport(app=shortened(long_way))
        async with httpx.AsyncClient(transport=transport, base_url="https://a") as client:

            async def post(path: str, body: bytes) -> bytes:
                return (await client.post(path, content=body)).content

            async with asyncio.timeout(10):
                return await story(post)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortcut, "_answer", answer)
        patch.setattr(shortcut, "HOLD_S", hold_s)
        return asyncio.run(whole())


async def pull(post: Post, node: int) -> int:
    """Return how many messages there are for a node."""
    found = await post(PULL, PullMessagesRequest(node=Node(node_id=node)).SerializeToString())
    return len(PullMessagesResponse.FromString(found).messages_list)


def test_who_asks_for_messages_is_kept_waiting_until_there_is_one() -> None:
    async def story(post: Post) -> tuple[int, list[bool]]:
        other, own = asyncio.create_task(pull(post, 1)), asyncio.create_task(pull(post, 2))
        await asyncio.sleep(0.1)
        waited = not own.done()
        message = FlowerMessage(metadata=Metadata(dst_node_id=2))
        pushed = PushAppMessagesRequest(messages_list=[message]).SerializeToString()
        await post("/v1/runtime/push-messages", pushed)
        found = await own
        alone = not other.done()
        other.cancel()
        return found, [waited, alone]

    # Held for longer than the story may last: it is the bell that ends the waiting.
    assert told(story, _Superlink().answer, 60.0) == (1, [True, True])


def test_nobody_is_kept_waiting_for_long() -> None:
    assert told(lambda post: pull(post, 1), _Superlink().answer, 0.2) == 0


class _Store:
    """Parts of a message, as requests on the short way put and take them."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {"soon": b"", "late": b""}

    def answer(self, _: Any, scope: Any, asked: Any) -> Any:
        if scope["path"].endswith("/push-object"):
            self.parts[asked.object_id] = asked.object_content
            return PushObjectResponse(stored=True)
        part = self.parts.get(asked.object_id)
        return PullObjectResponse(
            object_found=part is not None, object_available=bool(part), object_content=part or b""
        )


def test_a_node_that_asks_for_a_part_on_its_way_is_kept_waiting_for_it() -> None:
    async def story(post: Post) -> list[bytes | None]:
        async def pull(side: str, name: str) -> bytes:
            body = PullObjectRequest(object_id=name).SerializeToString()
            found = await post(f"/v1/{side}/pull-object", body)
            return PullObjectResponse.FromString(found).object_content

        asked = [("fleet", "soon"), ("fleet", "late"), ("fleet", "unknown"), ("runtime", "soon")]
        pulls = [asyncio.create_task(pull(*each)) for each in asked]
        await asyncio.sleep(0.1)
        done = [each.result() if each.done() else None for each in pulls]
        body = PushObjectRequest(object_id="soon", object_content=b"part").SerializeToString()
        await post("/v1/runtime/push-object", body)
        done.append(await pulls[0])
        pulls[1].cancel()
        return done

    # The server app, which has a deadline, is not kept waiting.
    assert told(story, _Store().answer, 60.0) == [None, None, b"", b"", b"part"]


@pytest.mark.parametrize("stored", [True, False])
def test_the_transaction_of_an_object_that_was_not_stored_is_undone(
    stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone: list[bool] = []

    class State:
        _cleanup_expired_task_tokens = staticmethod(lambda: None)

        @contextmanager
        def session(self) -> Iterator[None]:
            try:
                yield
            except ValueError:
                undone.append(True)
                raise

    factory = SimpleNamespace(state=State)
    app = SimpleNamespace(state=SimpleNamespace(linkstate_factory=factory))
    scope = {"type": "http", "path": "/v1/fleet/push-object", "headers": []}
    monkeypatch.setattr(shortcut, "authenticate_node", lambda _: None)
    answer = PushObjectResponse(stored=stored)
    monkeypatch.setitem(OF_NODES, "push-object", lambda *_: answer)
    if stored:
        assert shortcut._answer(app, scope, None) is answer
    else:
        with pytest.raises(ValueError, match="not stored"):
            shortcut._answer(app, scope, None)
    assert undone == ([] if stored else [True])
