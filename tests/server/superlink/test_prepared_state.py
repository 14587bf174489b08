"""What is prepared does to the database what Flower's own statements do to another one."""

import random
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import linkstate_factory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore import sql_mixin
from flwr.supercore.corestate import sql_corestate
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.object_store import NoObjectInStoreError, object_store_factory
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema import corestate_models as core
from flwr.supercore.state.schema import linkstate_models as link
from flwr.supercore.state.schema import objectstore_models as store
from flwr.superlink.federation import NoOpFederationManager
from sqlalchemy import insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from server.superlink.database_log import empty
from server.superlink.prepared_state import PreparedState, prepare
from server.superlink.prepared_store import PreparedStore

# Flower's own configuration of alembic is an old one.
pytestmark = pytest.mark.filterwarnings("ignore:No path_separator")
RUNS = (1, 2**64 - 5)
TABLES = (
    store.StoredObject,
    store.ObjectChild,
    store.RunObject,
    store.ObjectStoreLock,
    core.ObjectPushSession,
    core.ObjectPushSessionRoot,
    core.ObjectPushSessionPending,
)
# Of whom, which method, and its arguments.
Step = tuple[str, str, tuple[Any, ...]]


class Kind(NamedTuple):
    state: type[SqlLinkState]
    objects: type[SqlObjectStore]


KINDS = {
    "flowers": Kind(SqlLinkState, SqlObjectStore),
    "prepared": Kind(PreparedState, PreparedStore),
}


def _made(place: Path, state: type[SqlLinkState], objects: type[SqlObjectStore]) -> SqlLinkState:
    """Return the state in a database, which is a new one if there is none."""
    database = str(place)
    held = objects(database)
    held.initialize()
    made = state(database, NoOpFederationManager(), held)
    made.initialize()
    return made


@pytest.fixture(scope="module")
def empties(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a database as Flower makes it and one as it is made here, both empty."""
    folder = tmp_path_factory.mktemp("empty")
    for name, kind in KINDS.items():
        made = _made(folder / name, *kind)
        # The last connection takes the tables from the log into the file.
        made.object_store._engine.dispose()
        made._engine.dispose()
    return folder


def _copied(empties: Path, name: str, place: Path) -> SqlLinkState:
    shutil.copy(empties / name, place)
    with pytest.MonkeyPatch.context() as patched:
        # The copy has all tables; looking whether it has takes most of the time.
        patched.setattr(sql_mixin, "run_migrations", lambda engine: None)
        return _made(place, *KINDS[name])


@pytest.fixture
def flowers(tmp_path: Path, empties: Path) -> SqlLinkState:
    return _copied(empties, "flowers", tmp_path / "flowers.db")


@pytest.fixture
def prepared(tmp_path: Path, empties: Path) -> SqlLinkState:
    return _copied(empties, "prepared", tmp_path / "prepared.db")


def _rows(state: SqlLinkState) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that is in the tables, but for when a session ends."""
    found = {}
    with state.session() as session:
        for model in TABLES:
            name = model.__tablename__
            columns = ", ".join(c.name for c in model.__table__.c if c.name != "expires_at")
            rows = session.connection().exec_driver_sql(f"SELECT {columns} FROM {name}")  # noqa: S608
            found[name] = sorted(tuple(row) for row in rows)
    return found


def _outcome(step: Step, state: SqlLinkState) -> Any:
    """Return what a step returns, or the class and the words of what it raises."""
    of, name, arguments = step
    try:
        found = getattr(state.object_store if of == "store" else state, name)(*arguments)
    except (ValueError, NoObjectInStoreError) as error:
        return type(error), str(error)
    except SQLAlchemyError as error:
        return type(error)
    if isinstance(found, ObjectTree):
        return sorted((n.object_id, len(n.children)) for n in iterate_object_tree(found))
    return found


def _trees(choice: random.Random) -> tuple[list[ObjectTree], dict[str, bytes]]:
    """Return trees that share objects, and the bytes of every object."""
    pool = [ConfigRecord({"a": number}) for number in range(4)]
    trees: list[ObjectTree] = []
    contents: dict[str, bytes] = {}
    for _ in range(3):
        records = RecordDict({f"r{i}": choice.choice(pool) for i in range(choice.randint(0, 4))})
        trees.append(get_object_tree(records))
        contents |= {n: o.deflate() for n, o in get_all_nested_objects(records).items()}
    known = choice.choice(list(contents))
    other = [ObjectTree(object_id=name) for name in contents if name != known]
    trees.append(ObjectTree(object_id=known, children=other[:2]))
    trees.append(ObjectTree(object_id=known, children=[*other[:1], *other[:1]]))
    trees.append(ObjectTree(object_id="none"))
    return trees, contents


def _steps(seed: int) -> Iterator[Step]:
    choice = random.Random(seed)  # noqa: S311 - no secret
    trees, contents = _trees(choice)
    sessions, awaited = [("nobody's", RUNS[0])], trees[0]
    for _ in range(80):
        tree, (session, run) = choice.choice(trees), choice.choice(sessions[-2:])
        # Mostly what is awaited, by whom it is awaited, and as it should be.
        ids = [node.object_id for node in iterate_object_tree(awaited)]
        name = choice.choice(ids * 5 + [*contents, "none"])
        run = choice.choice([run] * 9 + list(RUNS))
        content = choice.choice([contents.get(name, b"")] * 9 + [b"other"])
        kind = choice.randrange(10)
        if kind == 0:
            sessions.append((str(UUID(int=len(sessions))), run))
            yield "state", "start_session", (run,)
        elif kind == 1:
            yield "store", "preregister", (run, tree)
        elif kind in (2, 3):
            awaited = tree
            yield "state", "preregister_object_tree", (tree, session)
        elif kind in (4, 5, 6):
            yield "state", "store_object", (run, session, name, content)
        elif kind == 7:
            yield "store", "put", (name, content)
        elif kind == 8:
            yield "store", "delete", (tree.object_id,)
        else:
            yield "store", "get", (name,)
            yield "store", "get_object_tree", (tree.object_id,)


def test_any_steps_leave_what_flowers_own_leave(
    tmp_path: Path, empties: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: set[str] = set()
    for seed in range(3):
        found = []
        for kind in KINDS:
            state = _copied(empties, kind, tmp_path / f"{seed}-{kind}.db")
            numbers = iter(range(1, 1000))
            monkeypatch.setattr(sql_corestate, "uuid4", lambda n=numbers: UUID(int=next(n)))
            found.append([(_outcome(step, state), _rows(state)) for step in _steps(seed)])
        for own, ours in zip(*found, strict=True):
            assert ours == own
        kinds |= {str(outcome)[-60:] for outcome, _ in found[0]}
    assert {"True", "False", "None", "b''"} <= kinds
    for words in ("different children", "duplicate children", "content hash", "pre-registered"):
        assert any(words in kind for kind in kinds)


def test_what_ran_out_is_refused_and_its_message_goes(
    flowers: SqlLinkState, prepared: SqlLinkState
) -> None:
    records = RecordDict({"a": ConfigRecord({"v": 1})})
    objects = get_all_nested_objects(records)
    name = next(iter(objects))
    for state in (flowers, prepared):
        session_id = state.start_session(RUNS[0])
        state.preregister_object_tree(get_object_tree(records), session_id)
        with state.session() as session:
            session.execute(
                update(core.ObjectPushSession).values(expires_at=now() - timedelta(seconds=1))
            )
        assert not state.store_object(RUNS[0], session_id, name, objects[name].deflate())
        assert state.object_store.get(name) is None
    assert _rows(prepared) == _rows(flowers)


def test_a_push_keeps_its_session_alive(prepared: SqlLinkState) -> None:
    records = RecordDict({"a": ConfigRecord({"v": 1}), "b": ConfigRecord({"v": 2})})
    objects = get_all_nested_objects(records)
    name = next(iter(objects))
    session_id = prepared.start_session(RUNS[0])
    prepared.preregister_object_tree(get_object_tree(records), session_id)
    soon = now() + timedelta(seconds=5)
    with prepared.session() as session:
        session.execute(update(core.ObjectPushSession).values(expires_at=soon))
    assert prepared.store_object(RUNS[0], session_id, name, objects[name].deflate())
    with prepared.session() as session:
        assert session.scalars(select(core.ObjectPushSession.expires_at)).one() > soon


@pytest.mark.parametrize("stage", range(4))
def test_a_run_stands_where_flower_says(
    flowers: SqlLinkState, prepared: SqlLinkState, stage: int
) -> None:
    times = ("pending_at", "starting_at", "running_at", "finished_at")[: stage + 1]
    for state in (flowers, prepared):
        with state.session() as session:
            session.execute(insert(link.Run).values(run_id=-5, primary_task_id=9))
            task = {"task_id": 9, "type": "serverapp", "run_id": -5, "sub_status": "failed"}
            task |= {"details": "because", **dict.fromkeys(times, now())}
            session.execute(insert(core.Task).values(**task))
    for asked in ({RUNS[1]}, {RUNS[0]}, set(), set(RUNS)):
        assert prepared.get_run_status(asked) == flowers.get_run_status(asked)
    assert len(prepared.get_run_status({RUNS[1]})) == 1


def test_who_calls_is_whom_flower_takes_them_for(
    flowers: SqlLinkState, prepared: SqlLinkState
) -> None:
    soon, past = now() + timedelta(seconds=60), now() - timedelta(seconds=1)
    ends = {"live": (soon, None), "late": (past, None), "done": (soon, past), "none": (None, None)}
    for state in (flowers, prepared):
        with state.session() as session:
            for number, (status, key) in enumerate([("online", b"a"), ("unregistered", b"b")]):
                row = {"node_id": number - 5, "status": status, "public_key": key}
                session.execute(insert(link.Node).values(**row))
            for number, (token, (until, finished)) in enumerate(ends.items()):
                times = dict.fromkeys(("pending_at", "starting_at", "running_at"), past)
                task = {"task_id": -number, "type": "serverapp", "run_id": -5, "fab_hash": "f"}
                ending = {"token": token, "active_until": until, "finished_at": finished}
                session.execute(insert(core.Task).values(**task, **times, **ending))
    for key in (b"a", b"b", b"c"):
        found = flowers.get_node_id_by_public_key(key)
        assert prepared.get_node_id_by_public_key(key) == found
        assert (found is not None) == (key == b"a")
    for token in (*ends, "nobody's"):
        task = flowers.get_task_by_token(token)
        assert prepared.get_task_by_token(token) == task
        assert (task is not None) == (token == "live")


def test_a_database_of_flowers_own_is_gone_on_with(tmp_path: Path) -> None:
    records = RecordDict({"a": ConfigRecord({"v": 1})})
    tree, objects = get_object_tree(records), get_all_nested_objects(records)
    before = _made(tmp_path / "state.db", SqlLinkState, SqlObjectStore)
    session_id = before.start_session(RUNS[0])
    before.preregister_object_tree(tree, session_id)
    after = _made(tmp_path / "state.db", PreparedState, PreparedStore)
    for name, each in objects.items():
        assert after.store_object(RUNS[0], session_id, name, each.deflate())
        assert before.object_store.get(name) == each.deflate()
    after.object_store.delete(tree.object_id)
    assert len(before.object_store) == 0


def test_a_new_database_has_room_for_models(prepared: SqlLinkState) -> None:
    with prepared.session() as session:
        connection = session.connection()
        for name, value in (
            ("page_size", 2**15),
            ("journal_mode", "wal"),
            ("wal_autocheckpoint", 2**11),
            ("secure_delete", 1),
        ):
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value


def test_flowers_factories_make_what_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linkstate_factory, "SqlLinkState", SqlLinkState)
    monkeypatch.setattr(object_store_factory, "SqlObjectStore", SqlObjectStore)
    prepare()
    database = str(tmp_path / "state.db")
    store = object_store_factory.ObjectStoreFactory(database)
    made = linkstate_factory.LinkStateFactory(database, NoOpFederationManager(), store).state()
    assert type(made) is PreparedState and type(made.object_store) is PreparedStore


def test_the_log_of_the_database_is_emptied_when_no_run_is_under_way(
    prepared: SqlLinkState, tmp_path: Path
) -> None:
    records = RecordDict({"a": ConfigRecord({"told": "what a hospital sent" * 100})})
    session_id = prepared.start_session(RUNS[0])
    prepared.preregister_object_tree(get_object_tree(records), session_id)
    for name, each in get_all_nested_objects(records).items():
        assert prepared.store_object(RUNS[0], session_id, name, each.deflate())
    task = {"task_id": 9, "type": "serverapp", "run_id": 1, "pending_at": now()}
    with prepared.session() as session:
        session.execute(insert(core.Task).values(**task))
    prepared.object_store.delete(get_object_tree(records).object_id)
    files = tmp_path / "prepared.db", tmp_path / "prepared.db-wal"
    assert not empty(files[0])
    assert b"what a hospital sent" in files[1].read_bytes()
    with prepared.session() as session:
        session.execute(update(core.Task).values(finished_at=now()))
    assert empty(files[0])
    assert all(b"what a hospital sent" not in file.read_bytes() for file in files)
    assert len(prepared.object_store) == 0
    assert not empty(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()
