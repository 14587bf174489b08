"""The objects of Flower's messages in its database, by statements that are made once.

Flower makes each statement anew, from mapped classes, whenever it runs it, and a reply is announced
in dozens of them: making them is what most of a request's time went into. These do the same to the
same tables, several rows at a time where they can. What is used of flwr is not public; it is pinned
to one version.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_object_id,
    is_valid_sha256_hash,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.sql_mixin import SqlMixin
from flwr.supercore.state.schema import objectstore_models as store
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import (
    BindParameter,
    CursorResult,
    Executable,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session

__all__ = ["OBJECT", "PreparedStore", "Roomy", "run"]

Values = Mapping[str, Any] | Sequence[Mapping[str, Any]]
PAGE_BYTES, LOG_BYTES = 2**15, 2**26

OBJECTS, CHILDREN = store.StoredObject.__table__, store.ObjectChild.__table__
OBJECT: BindParameter[str] = bindparam("an_object")
OBJECT_IDS: BindParameter[Any] = bindparam("objects", expanding=True)
LOCK = sqlite.insert(store.ObjectStoreLock.__table__).on_conflict_do_update(
    index_elements=["lock_id"], set_={"lock_value": 0}
)
KNOWN = select(OBJECTS.c.object_id, OBJECTS.c.is_available).where(
    OBJECTS.c.object_id.in_(OBJECT_IDS)
)
CHILDREN_OF = select(CHILDREN.c.child_id).where(CHILDREN.c.parent_id == OBJECT)
ADD_OBJECT, ADD_CHILD = insert(OBJECTS), insert(CHILDREN)
ADD_REFERENCE = (
    update(OBJECTS).where(OBJECTS.c.object_id == OBJECT).values(ref_count=OBJECTS.c.ref_count + 1)
)
DROP_REFERENCES = (
    update(OBJECTS)
    .where(OBJECTS.c.object_id.in_(OBJECT_IDS), OBJECTS.c.ref_count > 0)
    .values(ref_count=OBJECTS.c.ref_count - 1)
)
ADD_TO_RUN = sqlite.insert(store.RunObject.__table__).on_conflict_do_nothing()
EXISTS = select(OBJECTS.c.object_id).where(OBJECTS.c.object_id == OBJECT)
CONTENT = select(OBJECTS.c.content).where(OBJECTS.c.object_id == OBJECT)
FILL = (
    update(OBJECTS)
    .where(OBJECTS.c.object_id == OBJECT, OBJECTS.c.is_available == 0)
    .values(content=bindparam("filling"), is_available=1)
    .returning(OBJECTS.c.object_id)
)
DROP_OBJECT = (
    delete(OBJECTS)
    .where(OBJECTS.c.object_id == OBJECT, OBJECTS.c.ref_count == 0)
    .returning(OBJECTS.c.object_id)
)


class _Connection(sqlite3.Connection):
    """A connection to a database whose rows are pieces of models.

    As SQLite comes, pages have 4 KB, and at every 4 MB, with every few pieces of a model, the log
    is copied to its place and the disk waited for.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        # Of a database that is made by this connection; one that is there keeps its own.
        self.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}")
        # A hospital's model that was dropped is overwritten, whatever SQLite was built to do; the
        # log keeps it until `server.superlink.database_log` empties that.
        self.execute("PRAGMA secure_delete = ON")


class Roomy(SqlMixin):
    """What is kept in such a database."""

    def initialize(self, log_queries: bool = False, **options: Any) -> list[str]:
        """Open the database, and make it where there is none."""
        connected = {"check_same_thread": False, "factory": _Connection}
        return super().initialize(log_queries, connect_args=connected, **options)


def run(session: Session, statement: Executable, values: Values) -> CursorResult[Any]:
    """Run a prepared statement within a session of Flower's."""
    # What Flower's own methods have changed so far is to be seen.
    session.flush()
    return session.connection().execute(statement, values)


class PreparedStore(Roomy, SqlObjectStore):
    """Flower's store of objects; an object is known by the SHA-256 of its bytes."""

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Register a tree of objects, and return those of them that are not there yet.

        Raises
        ------
        ValueError
            If an id is none, or an object has a child twice, or has others than it had before.
        """
        nodes = list(iterate_object_tree(object_tree))
        for node in nodes:
            if not is_valid_sha256_hash(node.object_id):
                raise ValueError(f"Invalid object ID format: {node.object_id}")
        missing: list[str] = []
        with self._mutation_session() as session:
            asked = {"objects": list({node.object_id for node in nodes})}
            available = {row.object_id: row.is_available for row in run(session, KNOWN, asked)}
            new: dict[str, list[str]] = {}
            for node in nodes:
                name, children = node.object_id, [child.object_id for child in node.children]
                if len(children) != len(set(children)):
                    raise ValueError(f"Object {name} has duplicate children.")
                if name not in available:
                    available[name], new[name] = 0, children
                else:
                    before = new[name] if name in new else self._children(session, name)
                    if set(before) != set(children):
                        raise ValueError(
                            f"Object {name} was preregistered with different children."
                        )
                if available[name] == 0:
                    missing.append(name)
            self._add(session, new)
            number = uint64_to_int64(run_id)
            rows = [{"run_id": number, "object_id": name} for name in available]
            run(session, ADD_TO_RUN, rows)
        return missing

    def get_object_tree(self, object_id: str) -> ObjectTree:
        """Return the tree of an object.

        Raises
        ------
        NoObjectInStoreError
            If it is not registered, or its tree is not whole.
        """
        with self.session() as session:
            if run(session, EXISTS, {"an_object": object_id}).scalar() is None:
                raise NoObjectInStoreError(f"Object {object_id} was not pre-registered.")
            trees = [self.get_object_tree(child) for child in self._children(session, object_id)]
        return ObjectTree(object_id=object_id, children=trees)

    def put(self, object_id: str, object_content: bytes) -> None:
        """Fill in a registered object; one that is filled stays as it is.

        Raises
        ------
        ValueError
            If these are not the bytes that the id is of, or no object.
        NoObjectInStoreError
            If it is not registered.
        """
        if self.verify:
            if object_id != get_object_id(object_content):
                raise ValueError(f"Object ID {object_id} does not match content hash")
            validate_object_content(content=object_content)
        with self.session() as session:
            one = {"an_object": object_id}
            filled = run(session, FILL, {**one, "filling": object_content}).scalar()
            if filled is None and run(session, EXISTS, one).scalar() is None:
                raise NoObjectInStoreError(f"Object with ID '{object_id}' was not pre-registered.")

    def get(self, object_id: str) -> bytes | None:
        """Return an object's bytes: no byte if it is not filled in, None if it is not there."""
        with self.session() as session:
            content: bytes | None = run(session, CONTENT, {"an_object": object_id}).scalar()
            return content

    def delete(self, object_id: str) -> None:
        """Remove an object that no other one holds, and what is then held by none."""
        with self._mutation_session() as session:
            children = self._children(session, object_id)
            if run(session, DROP_OBJECT, {"an_object": object_id}).scalar() is None:
                return
            if children:
                run(session, DROP_REFERENCES, {"objects": children})
            for child in children:
                self.delete(child)

    def _children(self, session: Session, name: str) -> list[str]:
        return list(run(session, CHILDREN_OF, {"an_object": name}).scalars())

    def _add(self, session: Session, new: Mapping[str, Sequence[str]]) -> None:
        """Add objects without content, and what each of them holds."""
        empty = {"content": b"", "is_available": 0, "ref_count": 0}
        if new:
            run(session, ADD_OBJECT, [{"object_id": name, **empty} for name in new])
        held = [(parent, child) for parent, children in new.items() for child in children]
        if held:
            run(session, ADD_CHILD, [{"parent_id": p, "child_id": c} for p, c in held])
            run(session, ADD_REFERENCE, [{"an_object": child} for _, child in held])

    def _lock_objectstore_mutation(self) -> None:
        with self.session() as session:
            run(session, LOCK, {"lock_id": self._MUTATION_LOCK_ID, "lock_value": 0})
