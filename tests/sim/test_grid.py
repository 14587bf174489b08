"""The in-process grid behaves as Flower's own, with a real ClientApp."""

import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg

from protocol.errors import ConfigError
from sim.allocator import keep_freed_memory
from sim.grid import LocalGrid

app = ClientApp()
RUNNING: list[str] = []
BARRIER = threading.Barrier(2)


@app.query("count")
def count(message: Message, context: Context) -> Message:
    """Count how often this node was asked, and write into what was received."""
    seen = context.state.config_records.get("seen", ConfigRecord({"n": 0}))
    number = int(seen["n"]) + 1
    context.state["seen"] = ConfigRecord({"n": number})
    RUNNING.append(str(context.node_config["site"]))
    message.content["config"]["touched"] = True
    return Message(
        RecordDict({"m": MetricRecord({"n": number, "id": context.node_id})}), reply_to=message
    )


@app.query("read")
def read(message: Message, context: Context) -> Message:
    return Message(
        RecordDict({"c": ConfigRecord({"keys": list(message.content["config"])})}),
        reply_to=message,
    )


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    raise RuntimeError("boom")


@app.query("meet")
def meet(message: Message, context: Context) -> Message:
    BARRIER.wait(timeout=20)
    return Message(RecordDict({"m": MetricRecord({"n": 1})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    arrays = ArrayRecord(
        {name: Array(array.numpy() + 1) for name, array in message.content["arrays"].items()}
    )
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def grid(workers: int = 1, num_nodes: int = 3) -> LocalGrid:
    return LocalGrid(app, [{"site": f"s{i}"} for i in range(num_nodes)], workers)


def messages(grid: LocalGrid, kind: str) -> list[Message]:
    content = RecordDict({"config": ConfigRecord({"x": 1})})
    return [Message(content, node, f"query.{kind}") for node in grid.get_node_ids()]


def test_nodes_are_counted_from_2() -> None:
    assert grid().get_node_ids() == [2, 3, 4]
    assert [node.node_id for node in grid().get_nodes()] == [2, 3, 4]
    assert grid().run.run_id == 1


def test_each_node_keeps_its_own_state_between_messages() -> None:
    local = grid()
    for expected in (1, 2, 3):
        replies = local.send_and_receive(messages(local, "count"))
        assert [reply.content["m"]["n"] for reply in replies] == [expected] * 3
        assert [reply.content["m"]["id"] for reply in replies] == [2, 3, 4]


def test_what_an_app_writes_into_a_request_no_other_app_sees() -> None:
    local = grid()
    content = RecordDict({"config": ConfigRecord({"x": 1})})
    local.send_and_receive([Message(content, 2, "query.count")])
    [reply] = local.send_and_receive([Message(content, 3, "query.read")])
    assert reply.content["c"]["keys"] == ["x"]


def test_with_one_worker_an_app_runs_when_its_reply_is_pulled() -> None:
    local = grid()
    RUNNING.clear()
    ids = local.push_messages(messages(local, "count"))
    assert RUNNING == []
    local.pull_messages([ids[1]])
    assert RUNNING == ["s1"]
    assert local.pull_messages([ids[1]]) == []
    assert len(local.pull_messages(ids)) == 2


def test_a_reply_names_its_request() -> None:
    local = grid()
    ids = local.push_messages(messages(local, "count"))
    replies = local.pull_messages(ids)
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids
    assert [reply.metadata.src_node_id for reply in replies] == [2, 3, 4]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_an_error_reply_as_in_deployment(workers: int) -> None:
    local = grid(workers)
    [reply, *_] = local.send_and_receive(messages(local, "fail"))
    assert reply.has_error()
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert reply.error.reason == "<class 'RuntimeError'>:<'boom'>"


def test_an_unknown_node_and_an_unknown_question_are_error_replies() -> None:
    local = grid()
    [reply] = local.send_and_receive([Message(RecordDict(), 99, "query.count")])
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
    [reply] = local.send_and_receive([Message(RecordDict(), 2, "query.nothing")])
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def test_two_workers_run_two_apps_at_once() -> None:
    local = grid(workers=2, num_nodes=2)
    # Each app waits for the other, so one at a time would never end.
    assert not any(r.has_error() for r in local.send_and_receive(messages(local, "meet")))


def test_workers_run_no_further_ahead_than_their_number() -> None:
    local = grid(workers=2, num_nodes=8)
    RUNNING.clear()
    ids = local.push_messages(messages(local, "count"))
    local.pull_messages(ids[:1])
    assert set(RUNNING) <= {"s0", "s1"}


def test_flowers_own_strategy_runs_on_it() -> None:
    start = ArrayRecord({"w": Array(np.zeros(3, dtype=np.float32))})
    strategy = FedAvg(fraction_evaluate=0.0)
    result = strategy.start(grid(), start, num_rounds=3)
    np.testing.assert_array_equal(result.arrays["w"].numpy(), [3, 3, 3])


def test_no_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="LocalGrid has 0 workers, expected 1 or more; give one"):
        grid(workers=0)


def test_freed_memory_is_kept_where_the_c_library_allows_it() -> None:
    assert keep_freed_memory() in (True, False)
