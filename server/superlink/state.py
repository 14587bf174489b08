"""What a consortium's SuperLink does differently with what Flower keeps in its database.

What is used of flwr is not public; it is pinned to one version.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.sql_mixin import SqlMixin
from flwr.supercore.state.schema.linkstate_models import MessageIns
from flwr.supercore.state.schema.objectstore_models import StoredObject
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from server.superlink.prepared_state import prepare

__all__ = ["adapt", "give_again"]

EXPIRY_LOOK_S = 1.0


def adapt() -> None:
    """Change it in this process, before the application is made."""
    prepare()
    _let_nodes_come_back()
    _take_turns()
    # A run's traffic, written in every request and read by nobody: we count our own.
    SqlLinkState.store_traffic = lambda *_, **__: None
    _look_for_lost_tasks_now_and_then()


def give_again(state: SqlLinkState, node_id: int) -> bool:
    """Let a node have again what it was given and has not received; say whether there is any.

    Flower gives a message once, and it is lost when the line breaks on its way. A node asks for the
    next message only when it has done with the one before, and its confirmation of that removes the
    message's object: what was given and has its object yet has not arrived.
    """
    lost = (
        update(MessageIns)
        .where(
            MessageIns.dst_node_id == uint64_to_int64(node_id),
            MessageIns.delivered_at != "",
            MessageIns.message_id.in_(select(StoredObject.object_id)),
        )
        .values(delivered_at="")
        .returning(MessageIns.message_id)
    )
    with state.session() as session:
        return bool(session.scalars(lost).all())


def _let_nodes_come_back() -> None:
    """Let a node that is still taken for connected connect again.

    Flower refuses a node that it holds for online, until its lease ends: twice its heartbeat, up to
    a minute after the node was killed. But whoever activates a node has just proven to have its
    key, so it is the same node, and the one that was online is gone. Two living nodes with one key
    would take messages from each other; a hospital's supervisor starts only one.
    """
    activate = SqlLinkState.activate_node

    def activate_again(self: SqlLinkState, node_id: int, heartbeat_interval: float) -> bool:
        self.deactivate_node(node_id)
        return activate(self, node_id, heartbeat_interval)

    SqlLinkState.activate_node = activate_again


def _take_turns() -> None:
    """Let the threads of this process take turns at the database, instead of finding it busy.

    SQLite has one writer, and who finds it busy sleeps and looks again, up to a tenth of a second
    each time; a thread that waits for a lock is woken when its turn comes.
    """
    turn = threading.RLock()
    session = SqlMixin.session

    @contextmanager
    def session_in_turn(self: SqlMixin) -> Iterator[Session]:
        with turn, session(self) as opened:
            yield opened

    SqlMixin.session = session_in_turn


def _look_for_lost_tasks_now_and_then() -> None:
    """Look for tasks that have not been heard of once a second, instead of in every request."""
    look = SqlLinkState._cleanup_expired_task_tokens
    looked_at = -EXPIRY_LOOK_S

    def look_now_and_then(self: SqlLinkState) -> None:
        nonlocal looked_at
        now = time.monotonic()
        if now >= looked_at + EXPIRY_LOOK_S:
            looked_at = now
            look(self)

    SqlLinkState._cleanup_expired_task_tokens = look_now_and_then
