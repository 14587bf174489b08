"""Joining and asking: bounded, in a fixed order, and saying who is missing."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from protocol.config import Rounds
from protocol.errors import ConfigError, DataError, QuorumError
from protocol.manifest_message import unpack
from protocol.payload import Answer, Refusal
from server.hospitals import join, require_quorum
from sim.grid import LocalGrid

ROUNDS = Rounds(deadline_s=30)
Hello = Callable[[Context], dict[str, Any] | Refusal | RecordDict]


def consortium_of(sites: list[str], hello: Hello | None = None) -> LocalGrid:
    app = ClientApp()

    @app.query("hello")
    def answer(message: Message, context: Context) -> Message:
        document = {"site": context.node_config["site"], "version": "1"}
        outcome = hello(context) if hello else document
        if isinstance(outcome, Refusal):
            return Message(outcome.to_error(), reply_to=message)
        records = outcome if isinstance(outcome, RecordDict) else Answer(outcome).to_records()
        return Message(records, reply_to=message)

    @app.query("echo")
    def echo(message: Message, context: Context) -> Message:
        if context.node_config["site"] == "bad":
            raise DataError("No.")
        document = Answer.from_records(message.content, "x").document
        return Message(Answer(document | context.node_config).to_records(), reply_to=message)

    return LocalGrid(app, [{"site": site} for site in sites])


class GrowingGrid(LocalGrid):
    """A grid whose nodes appear one by one, one every ten seconds."""

    clock: Any

    def get_node_ids(self) -> list[int]:
        return super().get_node_ids()[: 1 + int(self.clock.seconds // 10)]


def test_hospitals_are_found_by_name_in_the_order_asked_for() -> None:
    grid = consortium_of(["C", "A", "other", "B"])
    nodes = join(grid, ["A", "B", "C"], 5.0)
    assert nodes == {"A": 3, "B": 5, "C": 2}
    assert list(nodes) == ["A", "B", "C"]


def test_hospitals_that_come_later_are_waited_for(hand_clock: Any) -> None:
    grid = consortium_of(["A", "B", "C"])
    grid.__class__ = GrowingGrid
    grid.clock = hand_clock
    assert list(join(grid, ["C", "A"], 60.0, clock=hand_clock.clock())) == ["C", "A"]
    assert hand_clock.seconds == pytest.approx(20.0, abs=1.0)


def test_the_wait_ends_and_the_missing_are_named(hand_clock: Any) -> None:
    grid = consortium_of(["A"])
    with pytest.raises(
        QuorumError,
        match=r"^B, C did not join within 60 s; start concors-client there, or raise rounds.join_s",
    ):
        join(grid, ["A", "B", "C"], 60.0, clock=hand_clock.clock())
    assert hand_clock.seconds == 60.0


def test_a_node_that_refuses_is_quoted_and_asked_again(hand_clock: Any) -> None:
    asked = []

    def hello(context: Context) -> dict[str, Any] | Refusal:
        asked.append(hand_clock.seconds)
        if len(asked) < 3:
            return Refusal("E100", "site.yaml has no 'images' section.")
        return {"site": context.node_config["site"], "version": "1"}

    grid = consortium_of(["A"], hello)
    with pytest.raises(QuorumError, match=r"node 2 said E100 site.yaml has no 'images' section"):
        join(grid, ["A"], 5.0, clock=hand_clock.clock())
    asked.clear()
    assert join(consortium_of(["A"], hello), ["A"], 60.0, clock=hand_clock.clock()) == {"A": 2}
    assert [b - a for a, b in itertools.pairwise(asked)] == [10.0, 10.0]


def test_an_app_that_fails_is_quoted_without_its_text(hand_clock: Any) -> None:
    def hello(context: Context) -> dict[str, Any]:
        raise FileNotFoundError("/data/DOE^JANE")

    with pytest.raises(QuorumError, match="E502 The hospital did not reply because") as caught:
        join(consortium_of(["A"], hello), ["A"], 5.0, clock=hand_clock.clock())
    assert "DOE" not in caught.value.sentence


@pytest.mark.parametrize("document", [{}, {"site": 7}, {"site": ["A"]}, RecordDict()])
def test_a_hello_without_a_name_is_no_hospital(hand_clock: Any, document: Any) -> None:
    with pytest.raises(QuorumError, match="A did not join within 5 s"):
        join(consortium_of(["A"], lambda _: document), ["A"], 5.0, clock=hand_clock.clock())


def test_another_version_is_refused_by_name(hand_clock: Any) -> None:
    grid = consortium_of(["A"])
    with pytest.raises(QuorumError, match="E504 A runs another version than 2; install that one"):
        join(grid, ["A"], 5.0, version="2", clock=hand_clock.clock())
    assert join(consortium_of(["A"]), ["A"], 5.0, version="1") == {"A": 2}


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^Two nodes call themselves A; give each hospital its"):
        join(consortium_of(["A", "B", "A"]), ["A", "B"], 5.0)


@pytest.mark.parametrize(
    ("valid", "asked", "quorum", "enough"),
    [(3, 3, 1.0, True), (2, 3, 1.0, False), (2, 3, 0.667, True), (1, 3, 0.5, False),
     (2, 4, 0.5, True), (1, 200, 0.01, False), (0, 3, 0.001, False)],
)  # fmt: skip
def test_the_quorum_is_a_share_of_those_asked(
    valid: int, asked: int, quorum: float, enough: bool
) -> None:
    names = [f"s{i}" for i in range(asked)]
    refused = {name: Refusal("E501", "Late.") for name in names[valid:]}
    if enough:
        require_quorum(names[:valid], refused, quorum, "Round 1")
    else:
        with pytest.raises(QuorumError, match=f"^Round 1: {valid} of {asked} hospitals replied"):
            require_quorum(names[:valid], refused, quorum, "Round 1")


def deciding(sites: dict[str, list[str]], shown: list[tuple[str, str]]) -> LocalGrid:
    """Hospitals that say hello, and answer each time they see a manifest as their list says."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        document = {"site": context.node_config["site"], "version": "1"}
        return Message(Answer(document).to_records(), reply_to=message)

    @app.query("manifest")
    def manifest(message: Message, context: Context) -> Message:
        site = str(context.node_config["site"])
        shown.append((site, unpack(message.content, "The manifest")))
        decision = sites[site].pop(0)
        if decision.startswith("E"):
            return Message(Refusal(decision, "No such study.").to_error(), reply_to=message)
        return Message(Answer({"decision": decision}).to_records(), reply_to=message)

    return LocalGrid(app, [{"site": site} for site in sites])


def test_a_hospital_joins_when_it_approves_and_is_asked_until_then(hand_clock: Any) -> None:
    shown: list[tuple[str, str]] = []
    notes: list[dict[str, str]] = []
    sites = {"A": ["waiting", "E820", "declined", "approved"], "B": ["approved"], "other": []}
    nodes = join(
        deciding(sites, shown),
        ["A", "B"],
        60.0,
        manifest="the paper",
        note=notes.append,
        clock=hand_clock.clock(),
    )
    assert nodes == {"A": 2, "B": 3}
    # Who is no part of the study does not see it.
    assert shown == [("A", "the paper"), ("B", "the paper"), *[("A", "the paper")] * 3]
    assert hand_clock.seconds == pytest.approx(30.0, abs=3.0)
    assert [note["A"][:40] for note in notes] == [
        "E810 It awaits approval there; ask the h",
        "E820 No such study.",
        "E810 The hospital declined the study; as",
        "approved",
    ]
    assert notes[-1] == {"A": "approved", "B": "approved"}


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        ("waiting", "E810 It awaits approval there; ask the hospital's engineer to look"),
        ("perhaps", "E400 The decision of A is unknown; both ends must run the same version"),
    ],
)
def test_who_does_not_approve_in_time_is_named(
    hand_clock: Any, decision: str, sentence: str
) -> None:
    grid = deciding({"A": [decision] * 9}, [])
    with pytest.raises(QuorumError, match=rf"^A did not join within 20 s; node 2 said {sentence}"):
        join(grid, ["A"], 20.0, manifest="the paper", clock=hand_clock.clock())
