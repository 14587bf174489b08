"""The names by which Flower knows its objects, and records that are named once.

Flower names an object by the SHA-256 of its bytes, with all it holds, and hashes it anew whenever
it is asked: a model is named several times on its way. What is used of flwr is not public; it is
pinned to one version.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable import inflatable_object
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    no_object_id_recompute,
)

__all__ = [
    "Parcel",
    "content_id",
    "frozen",
    "is_packed",
    "named",
    "objects_of",
    "parcel_name",
]

PREFIX = "parcel-"


def objects_of(thing: Message | RecordDict) -> dict[str, Any]:
    """Return all objects that a message or records are made of, by name; the whole comes last."""
    _forget_names(thing)
    with no_object_id_recompute():
        return get_all_nested_objects(thing)


def content_id(message: Message) -> str:
    """Return the SHA-256 by which the content of a message is known, with all it holds."""
    if not message.has_content():
        return ""
    _forget_names(message)
    with no_object_id_recompute():
        return str(message.content.object_id)


@contextmanager
def named(names: set[str]) -> Iterator[None]:
    """Let what bears one of these names keep it, for what is done within."""
    with no_object_id_recompute():
        inflatable_object._ctx.computed_object_ids = names
        yield


def _forget_names(thing: Message | RecordDict) -> None:
    """Drop the names of what may have been altered since it was named last."""
    known: list[Any] = [thing]
    if isinstance(thing, Message) and thing.has_content():
        known.append(thing.content)
    if isinstance(known[-1], RecordDict):
        known += known[-1].values()
    for each in known:
        if not isinstance(each, Parcel):
            each.__dict__.pop("_object_id", None)


class Parcel(ConfigRecord):
    """A record that nobody alters, and that so keeps its name."""

    @property
    def is_dirty(self) -> bool:
        """No: Flower asks this before it believes a name."""
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy it as the record it is: its class goes by another's name, and is not found again."""
        return ConfigRecord, (dict(self),)


# Flower writes the name of the class before the bytes, and makes from them what the name says.
Parcel.__qualname__ = ConfigRecord.__qualname__


def parcel_name(index: int) -> str:
    """Return by what name records hold one of their parcels."""
    return f"{PREFIX}{index:05d}"


def is_packed(records: RecordDict) -> bool:
    """Say whether records are parcels (`protocol.parcels`)."""
    return parcel_name(0) in records


def frozen(records: RecordDict) -> RecordDict:
    """Return parcels whose names are computed once; what are no parcels, as they are."""
    if not is_packed(records):
        return records
    # Equal parcels are one object, which is named, and so hashed, once.
    made: dict[int, Any] = {}
    for record in records.values():
        if id(record) not in made:
            plain = not isinstance(record, ConfigRecord)
            made[id(record)] = record if plain else Parcel(dict(record))
    return RecordDict({name: made[id(record)] for name, record in records.items()})
