"""What Flower sends again of a reply whose upload was cut: its own parts, without a network.

The statements of `protocol.records` about chunks rest on this.
"""

from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app.message import array as flower_array
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import push_object_contents_from_iterable
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from protocol.records import to_array_record

RUN, CHUNK = 1, 2**16


@pytest.fixture
def reply(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a model of 4 MB as Flower cuts it into chunks of 64 KiB."""
    monkeypatch.setattr(flower_array, "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", CHUNK)
    rng = np.random.default_rng(0)
    return to_array_record({"delta": rng.integers(0, 256, 2**22).astype(np.uint8)})


class Line:
    """A connection to Flower's server that is cut once, in the midst of a chunk.

    Attributes
    ----------
    cut_after : int
        Bytes after which the chunk on its way is lost.
    down_for : int
        Attempts that then find no line at all.
    """

    def __init__(self, state: InMemoryNodeState, cut_after: int, down_for: int) -> None:
        self.state = state
        self.cut_after = cut_after
        self.down_for = down_for
        self.bytes_sent = 0
        self.cut = False
        self.invoker = make_simple_http_retry_invoker()
        self.invoker.wait_function = lambda seconds: None

    def push(self, session: str, object_id: str, content: bytes) -> None:
        assert self.invoker.invoke(self._once, session, object_id, content)

    def _once(self, session: str, object_id: str, content: bytes) -> bool:
        if self.cut and self.down_for > 0:
            self.down_for -= 1
            raise httpx.ConnectError("there is no line")
        self.bytes_sent += len(content)
        if not self.cut and self.bytes_sent > self.cut_after:
            self.cut = True
            raise httpx.WriteError("the line was cut")
        return self.state.store_object(RUN, session, object_id, content)


def upload(line: Line, reply: Any, state: InMemoryNodeState) -> int:
    """Announce a reply, push what the server lacks, and return how many objects that was."""
    session = state.start_session(RUN)
    missing = state.preregister_object_tree(get_object_tree(reply), session)
    objects = get_all_nested_objects(reply)
    push_object_contents_from_iterable(
        ((name, objects[name].deflate()) for name in missing),
        lambda name, content: line.push(session, name, content),
        max_concurrent_pushes=1,
    )
    return len(missing)


def test_a_cut_line_costs_the_chunk_that_was_on_its_way(reply: Any) -> None:
    state = InMemoryNodeState(InMemoryObjectStore())
    line = Line(state, cut_after=2**21, down_for=20)
    number = upload(line, reply, state)
    assert number == 2**22 // CHUNK + 3
    whole = sum(len(item.deflate()) for item in get_all_nested_objects(reply).values())
    # Of 64 chunks one went twice.
    assert line.cut and line.down_for == 0
    assert CHUNK <= line.bytes_sent - whole <= 1.01 * CHUNK < 0.1 * whole


def test_a_hospital_that_starts_over_sends_only_what_the_server_lacks(reply: Any) -> None:
    state = InMemoryNodeState(InMemoryObjectStore())
    session = state.start_session(RUN)
    missing = state.preregister_object_tree(get_object_tree(reply), session)
    objects = get_all_nested_objects(reply)
    for name in missing[:40]:
        assert state.store_object(RUN, session, name, objects[name].deflate())
    line = Line(state, cut_after=2**30, down_for=0)
    assert upload(line, reply, state) == len(missing) - 40


def test_a_chunk_that_arrived_is_not_taken_twice(reply: Any) -> None:
    # So a chunk whose receipt is lost fails the upload: one more reason for small ones.
    state = InMemoryNodeState(InMemoryObjectStore())
    session = state.start_session(RUN)
    name = state.preregister_object_tree(get_object_tree(reply), session)[0]
    content = get_all_nested_objects(reply)[name].deflate()
    assert state.store_object(RUN, session, name, content)
    assert not state.store_object(RUN, session, name, content)
