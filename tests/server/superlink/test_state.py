"""What is changed of Flower's state, on a real database."""

import time
from pathlib import Path

import pytest
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.state.schema.linkstate_models import MessageIns
from flwr.supercore.state.schema.objectstore_models import StoredObject
from flwr.superlink.federation import NoOpFederationManager

from server.superlink.state import give_again

# Flower's own configuration of alembic is an old one.
pytestmark = pytest.mark.filterwarnings("ignore:No path_separator")
NODE = 7


@pytest.fixture
def state(tmp_path: Path) -> SqlLinkState:
    database = str(tmp_path / "state.db")
    store = ObjectStoreFactory(database)
    made = LinkStateFactory(database, NoOpFederationManager(), store).state()
    assert isinstance(made, SqlLinkState)
    return made


def put(state: SqlLinkState, name: str, node: int, given: bool) -> None:
    with state.session() as session:
        session.add(StoredObject(object_id=name, content=b"x", is_available=1, ref_count=0))
        session.add(
            MessageIns(
                message_id=name,
                dst_node_id=node,
                created_at=time.time(),
                delivered_at="2026-01-01" if given else "",
                ttl=60.0,
            )
        )


def claimed(state: SqlLinkState) -> list[str]:
    return [row["message_id"] for row in state._claim_message_ins_rows(NODE, None)]


def test_a_message_that_got_lost_on_its_way_is_given_again(state: SqlLinkState) -> None:
    put(state, "lost", NODE, given=True)
    put(state, "another's", NODE + 1, given=True)
    assert claimed(state) == []
    assert give_again(state, NODE)
    assert claimed(state) == ["lost"]


def test_a_message_that_arrived_is_not_given_again(state: SqlLinkState) -> None:
    put(state, "arrived", NODE, given=True)
    # What a node's confirmation does.
    state.object_store.delete("arrived")
    assert not give_again(state, NODE)
    assert claimed(state) == []


def test_a_transaction_that_fails_leaves_nothing(state: SqlLinkState) -> None:
    """What a request did before it failed is undone, so that it can be done again."""
    with pytest.raises(RuntimeError), state.session():
        state.create_node("aid", "name", b"key", 10)
        assert state.get_node_id_by_public_key(b"key") is not None
        raise RuntimeError
    assert state.get_node_id_by_public_key(b"key") is None
