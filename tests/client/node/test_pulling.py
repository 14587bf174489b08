"""A message is fetched soon, and of one whose run ends meanwhile nothing remains."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeStateFactory

from client.node.pulling import FIRST_LOOK_S, Turns, soon

RUN = 7


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in (("_task_id", 1), ("_run_id", RUN), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)
    state = NodeStateFactory(ObjectStoreFactory()).state()
    state.set_node_id(2)
    state.store_run(Run.create_empty(RUN))
    return state


def stopped(*_: object) -> bytes:
    raise RunNotRunningException


def receive(node: Any, pull_and_store: Any, confirm: Any = stopped) -> int | None:
    """Receive a message of a run that ends before its arrays are there."""
    message = Message(
        RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(3))})}), 2, "train", ttl=60.0
    )
    message.metadata.__dict__["_message_id"] = message.object_id
    given: dict[str, Any] = {
        "state": node,
        "object_store": node.object_store,
        "node_config": {},
        "receive": lambda: (message, get_object_tree(message)),
        "get_run": stopped,
        "get_fab": stopped,
        "pull_object": stopped,
        "confirm_message_received": confirm,
        "trusted_entities": None,
    }
    return pull_and_store(**given)  # type: ignore[no-any-return]


def unfinished(node: Any) -> int:
    return len(node.get_tasks(statuses=["pending", "starting", "running"]))


def flowers(name: str) -> Any:
    return getattr(import_module("flwr.supernode.start_client_internal"), name)


def never(**_: object) -> None:
    pytest.fail("nothing was to be pushed")


def test_nothing_of_an_interrupted_message_remains(node: Any) -> None:
    told: list[int] = []
    turns = Turns(flowers("_pull_and_store_message"), never, lambda: told.append(1))
    assert receive(node, turns.pull) is None
    assert unfinished(node) == 0
    assert not node.get_messages_legacy(is_reply=False)
    assert not told


def test_the_gatekeeper_is_told_of_a_whole_message() -> None:
    told: list[int] = []
    given = dict.fromkeys(("pull_object", "confirm_message_received", "receive"), stopped)
    assert Turns(lambda **_: RUN, never, lambda: told.append(1)).pull(**given) == RUN
    assert Turns(lambda **_: None, never, lambda: told.append(2)).pull(**given) is None
    assert told == [1]


def pushed_after_a_late_reply(node: Any, turns: Turns) -> list[str]:
    """Receive a message while the reply to an earlier one turns up, and push."""
    asked = [Message(RecordDict(), 2, "train", ttl=60.0, group_id=group) for group in "ab"]
    replies = []
    for message in asked:
        message.metadata.__dict__["_message_id"] = message.object_id
        reply = Message(RecordDict(), reply_to=message)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        node.store_message(reply)
        node.object_store.preregister(RUN, get_object_tree(reply))
        for name, part in get_all_nested_objects(reply).items():
            node.object_store.put(name, part.deflate())
        replies.append(reply)
    turns.pull(
        receive=lambda: (asked[1], None), pull_object=stopped, confirm_message_received=stopped
    )
    sent: list[str] = []

    def send(message: Message, *_: object) -> tuple[set[str], str]:
        sent.append(message.metadata.reply_to_message_id)
        return set(), ""

    turns.push(state=node, object_store=node.object_store, send=send, push_object=stopped)
    assert not node.get_messages_legacy(is_reply=True)
    return ["ab"[[m.metadata.message_id for m in asked].index(name)] for name in sent]


def test_a_reply_to_a_message_that_was_given_up_is_not_sent(node: Any) -> None:
    turns = Turns(lambda **given: given["receive"]() and RUN, flowers("_push_messages"), list)
    assert pushed_after_a_late_reply(node, turns) == ["b"]


def test_an_array_that_is_not_there_yet_is_asked_for_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pull = inflatable_utils.pull_objects
    for each in (pull, inflatable_utils.pull_and_inflate_object_from_tree):
        monkeypatch.setattr(each, "__kwdefaults__", dict(each.__kwdefaults__))
    soon()
    tries: list[str] = []

    def once(name: str) -> bytes:
        tries.append(name)
        if len(tries) == 1:
            raise inflatable_utils.ObjectUnavailableError("a")
        return b"x"

    assert pull(["a"], once) == {"a": b"x"}
    assert tries == ["a", "a"]
    assert pull.__kwdefaults__["initial_backoff"] == FIRST_LOOK_S


def test_without_it_flower_leaves_a_task_that_nobody_can_do(node: Any) -> None:
    """When this fails, Flower clears up by itself, and `client.node.pulling` can go."""
    assert receive(node, flowers("_pull_and_store_message")) is None
    assert unfinished(node) == 1
