"""Asking: bounded, in a fixed order, and again when a node has forgotten."""

from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.superlink.grid import http_grid

from protocol.config import Rounds
from protocol.errors import DataError, QuorumError
from protocol.payload import Answer, Refusal
from server.asking import ask
from server.patience import bounded_pulls
from sim.grid import LocalGrid

ROUNDS = Rounds(deadline_s=30)


def consortium_of(sites: list[str], kind: type[LocalGrid] = LocalGrid) -> Any:
    app = ClientApp()

    @app.query("echo")
    def echo(message: Message, context: Context) -> Message:
        if context.node_config["site"] == "bad":
            raise DataError("No.")
        document = Answer.from_records(message.content, "x").document
        return Message(Answer(document | context.node_config).to_records(), reply_to=message)

    return kind(app, [{"site": site} for site in sites])


def test_answers_come_in_the_order_of_the_names() -> None:
    grid = consortium_of(["C", "B", "A"])
    request = Answer({"x": 1}).to_records()
    replies = ask(grid, {"B": 3, "C": 2, "A": 4}, request, "query.echo", ROUNDS)
    documents = [(s, Answer.from_records(r, s).document) for s, r in replies]
    assert documents == [(site, {"x": 1, "site": site}) for site in "ABC"]


def test_each_hospital_can_be_asked_something_else() -> None:
    grid = consortium_of(["A", "B"])
    replies = ask(
        grid, {"A": 2, "B": 3}, lambda s: Answer({"to": s}).to_records(), "query.echo", ROUNDS
    )
    assert [Answer.from_records(r, s).document["to"] for s, r in replies] == ["A", "B"]


def test_a_node_that_is_gone_or_fails_is_a_refusal(hand_clock: Any) -> None:
    grid = consortium_of(["A", "bad"])
    request = Answer({}).to_records()
    nodes = {"A": 2, "bad": 3, "gone": 9}
    rounds = Rounds(deadline_s=30, rejoin_s=4)
    replies = dict(ask(grid, nodes, request, "query.echo", rounds, clock=hand_clock.clock()))
    assert hand_clock.seconds == 4.0
    assert replies["bad"] == Refusal(
        "E502",
        "The hospital did not reply because its app failed with an exception; see its own log.",
    )
    assert "was not back within 4 s" in replies["gone"].sentence


class DeafGrid(LocalGrid):
    """A grid whose server takes no message, or loses one."""

    ids: list[Any]

    def push_messages(self, messages: Any) -> list[Any]:
        return self.ids


def test_requests_the_server_did_not_take_are_reported(hand_clock: Any) -> None:
    grid = consortium_of(["A", "B"])
    grid.__class__ = DeafGrid
    grid.ids = []
    request = Answer({}).to_records()
    with pytest.raises(QuorumError, match=r"^Flower's server took 0 of 2 requests"):
        list(ask(grid, {"A": 2, "B": 3}, request, "query.echo", ROUNDS))
    grid.ids = [None, None]
    replies = dict(ask(grid, {"A": 2, "B": 3}, request, "query.echo", ROUNDS))
    assert {refusal.code for refusal in replies.values()} == {"E503"}


class ForgetfulGrid(LocalGrid):
    """A grid whose node 3 is restarted at some moments and loses what it was asked before."""

    clock: Any
    restarts: tuple[float, ...] = ()

    def get_nodes(self) -> list[Any]:
        count = sum(self.clock.seconds >= at for at in self.restarts)
        return [
            SimpleNamespace(node_id=node, last_activated_at=f"start {count if node == 3 else 0}")
            for node in self.get_node_ids()
        ]

    def push_messages(self, messages: Any) -> list[str]:
        messages = list(messages)
        ids = list(super().push_messages(messages))
        self.asked = [*getattr(self, "asked", []), *(m.metadata.dst_node_id for m in messages)]
        for message, message_id in zip(messages, ids, strict=True):
            lost = message.metadata.dst_node_id == 3 and any(
                at > self.clock.seconds for at in self.restarts
            )
            if lost:
                self._queue.pop(message_id)
        return ids


@pytest.mark.parametrize("restarts", [(0.5,), (0.5, 9.0), (0.5, 9.0, 17.25)])
def test_a_node_that_was_started_anew_is_asked_again(
    hand_clock: Any, restarts: tuple[float, ...]
) -> None:
    grid = consortium_of(["A", "B", "C"], ForgetfulGrid)
    grid.clock, grid.restarts = hand_clock, restarts
    request = Answer({"x": 1}).to_records()
    nodes = {"A": 2, "B": 3, "C": 4}
    replies = dict(ask(grid, nodes, request, "query.echo", ROUNDS, clock=hand_clock.clock()))
    assert {s: Answer.from_records(r, s).document["site"] for s, r in replies.items()} == {
        site: site for site in "ABC"
    }
    assert grid.asked == [2, 3, 4] + [3] * len(restarts)
    assert hand_clock.seconds < restarts[-1] + 3


def test_a_node_that_stays_silent_is_not_asked_twice(hand_clock: Any) -> None:
    grid = consortium_of(["A", "B"], ForgetfulGrid)
    grid.clock, grid.restarts = hand_clock, (100.0,)
    request = Answer({}).to_records()
    late: dict[str, str] = {}
    nodes, clock = {"A": 2, "B": 3}, hand_clock.clock()
    replies = dict(ask(grid, nodes, request, "query.echo", ROUNDS, clock=clock, late=late))
    assert replies["B"].code == "E501"
    assert grid.asked == [2, 3]
    assert hand_clock.seconds == 30.0
    assert late == {"B": "message-2"}


class SlowGrid(LocalGrid):
    """A grid whose node 3 needs some seconds for everything."""

    clock: Any
    seconds = 50.0

    def push_messages(self, messages: Any) -> list[str]:
        messages = list(messages)
        ids = list(super().push_messages(messages))
        self.due = getattr(self, "due", {})
        for message, message_id in zip(messages, ids, strict=True):
            slow = self.seconds if message.metadata.dst_node_id == 3 else 0.0
            self.due[message_id] = self.clock.seconds + slow
        return ids

    def pull_messages(self, message_ids: Any) -> list[Message]:
        return super().pull_messages([i for i in message_ids if self.due[i] <= self.clock.seconds])


def test_whoever_is_late_delays_one_round_and_comes_back(hand_clock: Any) -> None:
    grid = consortium_of(["A", "B"], SlowGrid)
    grid.clock = hand_clock
    late: dict[str, str] = {}
    seen = []
    for number in range(1, 5):
        request = Answer({"round": number}).to_records()
        start, clock = hand_clock.seconds, hand_clock.clock()
        replies = dict(
            ask(grid, {"A": 2, "B": 3}, request, "query.echo", ROUNDS, clock=clock, late=late)
        )
        said = replies["B"]
        of_round = said.code if isinstance(said, Refusal) else said["document"]["json"]
        seen.append((hand_clock.seconds - start, of_round))
        hand_clock.seconds += 15.0
        grid.seconds = 1.0
    assert [seconds for seconds, _ in seen] == [30.0, 0.0, 1.0, 1.0]
    assert [said for _, said in seen[:2]] == ["E501", "E505"]
    # What it answers is the round it was asked in, never the one it was late for.
    assert [number in said for number, (_, said) in zip("34", seen[2:], strict=True)] == [True] * 2
    assert late == {}


def test_the_parts_of_a_reply_are_not_waited_for_beyond_the_deadline() -> None:
    from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError

    def absent(name: str) -> bytes:
        raise ObjectUnavailableError(name)

    with bounded_pulls(0.0), pytest.raises(ObjectPullError, match="timeout"):
        http_grid.pull_objects(["a"], absent)
    with bounded_pulls(1e6, lambda: True), pytest.raises(ObjectPullError, match="started anew"):
        http_grid.pull_objects(["a"], absent)
    with bounded_pulls(0.0):
        assert http_grid.pull_objects(["a"], str.encode) == {"a": b"a"}
