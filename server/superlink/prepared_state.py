"""Flower's state of runs and uploads in its database, by statements that are made once.

As `server.superlink.prepared_store`, and for the same reason. Whatever a round does not ask for is
Flower's as it was. What is used of flwr is not public; it is pinned to one version.
"""

import logging
from datetime import timedelta

from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate import linkstate_factory, sql_linkstate
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import OBJECT_PUSH_SESSION_TTL_SECONDS, NodeStatus
from flwr.supercore.corestate import sql_corestate
from flwr.supercore.date import now
from flwr.supercore.object_store import object_store_factory
from flwr.supercore.run import RunStatus
from flwr.supercore.state.schema import corestate_models as core
from flwr.supercore.state.schema import linkstate_models as link
from flwr.supercore.utils import int64_to_uint64, uint64_to_int64
from sqlalchemy import BindParameter, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import sqlite

from server.superlink.prepared_store import OBJECT, PreparedStore, Roomy, run

__all__ = ["PreparedState", "prepare"]

log = logging.getLogger("concors.superlink")

SESSIONS, ROOTS = core.ObjectPushSession.__table__, core.ObjectPushSessionRoot.__table__
PENDING = core.ObjectPushSessionPending.__table__
SESSION: BindParameter[str] = bindparam("a_session")
SESSION_RUN = select(SESSIONS.c.run_id).where(SESSIONS.c.session_id == SESSION)
SESSION_END = select(SESSIONS.c.expires_at).where(SESSIONS.c.session_id == SESSION)
OTHER_SESSION = select(ROOTS.c.session_id).where(
    ROOTS.c.root_object_id == OBJECT, ROOTS.c.session_id != SESSION
)
ADD_ROOT = insert(ROOTS)
ADD_PENDING = sqlite.insert(PENDING).on_conflict_do_nothing()
NUM_PENDING = select(func.count()).select_from(PENDING).where(PENDING.c.session_id == SESSION)
SET_NUM_PENDING = (
    update(SESSIONS)
    .where(SESSIONS.c.session_id == SESSION)
    .values(pending_count=bindparam("so_many"))
)
CLAIM = (
    delete(PENDING)
    .where(
        PENDING.c.session_id == SESSION,
        PENDING.c.object_id == OBJECT,
        select(SESSIONS.c.session_id)
        .where(SESSIONS.c.session_id == SESSION, SESSIONS.c.run_id == bindparam("a_run"))
        .exists(),
    )
    .returning(PENDING.c.session_id)
)
ONE_LESS_PENDING = (
    update(SESSIONS)
    .where(SESSIONS.c.session_id == SESSION)
    .values(pending_count=SESSIONS.c.pending_count - 1, expires_at=bindparam("until"))
    .returning(SESSIONS.c.pending_count)
)

RUNS, TASKS = link.Run.__table__, core.Task.__table__
STATUS = (
    select(
        *(TASKS.c[name] for name in ("task_id", "pending_at", "starting_at", "running_at")),
        *(TASKS.c[name] for name in ("finished_at", "sub_status", "details")),
    )
    .join_from(RUNS, TASKS, TASKS.c.task_id == RUNS.c.primary_task_id)
    .where(RUNS.c.run_id == bindparam("a_run"))
)


NODES = link.Node.__table__
NODE = select(NODES.c.node_id).where(
    NODES.c.public_key == bindparam("a_key"), NODES.c.status != NodeStatus.UNREGISTERED
)
TASK = select(TASKS).where(TASKS.c.token == bindparam("a_token"), TASKS.c.finished_at.is_(None))


def prepare() -> None:
    """Let Flower's factories, in this process, make these instead of its own."""
    object_store_factory.SqlObjectStore = PreparedStore
    linkstate_factory.SqlLinkState = PreparedState


class PreparedState(Roomy, SqlLinkState):
    """Flower's state of runs, nodes and messages."""

    def preregister_object_tree(self, object_tree: ObjectTree, session_id: str) -> list[str]:
        """Register a message's objects for a session of uploads; return those to be uploaded.

        Raises
        ------
        ValueError
            If there is no such session, or as `PreparedStore.preregister`.
        """
        with self.session() as session:
            this, root = {"a_session": session_id}, object_tree.object_id
            number = run(session, SESSION_RUN, this).scalar()
            if number is None:
                raise ValueError(f"Unknown object push session: {session_id}")
            missing = self.object_store.preregister(int64_to_uint64(number), object_tree)
            other = run(session, OTHER_SESSION, {**this, "an_object": root}).scalar()
            if other is not None:
                self._cleanup_push_session(other, cleanup_messages=False)
            run(session, ADD_ROOT, {"session_id": session_id, "root_object_id": root})
            if missing:
                pending = [{"session_id": session_id, "object_id": name} for name in missing]
                run(session, ADD_PENDING, pending)
            count = run(session, NUM_PENDING, this).scalar()
            run(session, SET_NUM_PENDING, {**this, "so_many": count})
            return missing

    def store_object(
        self, run_id: int, session_id: str, object_id: str, object_content: bytes
    ) -> bool:
        """Fill in an object that a session waits for; say whether it did."""
        if not session_id:
            return super().store_object(run_id, session_id, object_id, object_content)
        try:
            return self._filled(run_id, session_id, object_id, object_content)
        except Exception as error:  # noqa: BLE001 - as Flower's own: callers expect no other
            log.warning("an object was not stored (%s)", type(error).__name__)
            return False

    def _filled(self, run_id: int, session_id: str, name: str, content: bytes) -> bool:
        with self.session() as session:
            this = {"a_session": session_id}
            claim = {**this, "an_object": name, "a_run": uint64_to_int64(run_id)}
            if run(session, CLAIM, claim).scalar() is None:
                return False
            if run(session, SESSION_END, this).scalar_one() <= now():
                self._cleanup_push_session(session_id, cleanup_messages=True)
                return False
            self.object_store.put(name, content)
            until = now() + timedelta(seconds=OBJECT_PUSH_SESSION_TTL_SECONDS)
            left = run(session, ONE_LESS_PENDING, {**this, "until": until}).scalar_one()
            if left == 0:
                self._cleanup_push_session(session_id, cleanup_messages=False)
            return True

    def get_run_status(self, run_ids: set[int]) -> dict[int, RunStatus]:
        """Return how runs stand; one that is not known is left out."""
        if len(run_ids) != 1:
            return super().get_run_status(run_ids)
        self._cleanup_expired_task_tokens()
        (number,) = run_ids
        with self.session() as session:
            task = run(session, STATUS, {"a_run": uint64_to_int64(number)}).one_or_none()
            return {} if task is None else {number: sql_linkstate._run_status_from_task_model(task)}

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        """Return the node that has a key, None if none has."""
        with self.session() as session:
            node = run(session, NODE, {"a_key": public_key}).scalar()
            return None if node is None else int64_to_uint64(node)

    def get_task_by_token(self, token: str) -> Task | None:
        """Return the task under way that a token is of, None if it is of none."""
        with self.session() as session:
            task = run(session, TASK, {"a_token": token}).first()
            if task is None or task.active_until is None or task.active_until < now():
                return None
            return sql_corestate.task_from_model(task)
