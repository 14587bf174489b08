"""The outside of every message: its kind, one checked JSON document, and arrays beside it."""

import math
from functools import lru_cache
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from protocol.arrays import Arrays
from protocol.config import Study
from protocol.documents import check_keys, decode, encode, need
from protocol.errors import ConfigError, PayloadError
from protocol.records import to_array_record
from protocol.yaml_files import parse

__all__ = ["is_count", "is_rate", "pack", "read_study", "study_text", "unpack"]


def pack(kind: str, document: dict[str, Any], arrays: Arrays | None) -> RecordDict:
    """Return the content of a message of one kind."""
    text = encode(document | {"kind": kind}, f"The document of a {kind}")
    records = RecordDict({"document": ConfigRecord({"json": text})})
    if arrays is not None:
        records["arrays"] = to_array_record(arrays)
    return records


def unpack(
    records: RecordDict,
    kind: str,
    keys: tuple[str, ...],
    where: str,
    names: frozenset[str] = frozenset({"document", "arrays"}),
    optional: frozenset[str] = frozenset(),
) -> tuple[dict[str, Any], ArrayRecord | None]:
    """Return the checked document of a message and its still encoded arrays, if any.

    Parameters
    ----------
    records : RecordDict
        As received.
    kind : str
        What it must be.
    keys : tuple of str
        Of its document, all of them.
    where : str
        Whose message it is; for the error.
    names : frozenset of str
        Of the records that may be there.
    optional : frozenset of str
        Further keys that the document may have.

    Raises
    ------
    PayloadError
        If anything is missing, unknown or of another type.
    """
    where = f"{where} ({kind})"
    config, arrays = records.get("document"), records.get("arrays")
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord | None):
        raise PayloadError(f"{where} has no document; both ends must run the same version.")
    # The heads of the hospital's logs stand beside the document (`protocol.custody`).
    if not records.keys() <= names or set(config) - {"heads"} != {"json"}:
        raise PayloadError(f"{where} has unknown records; both ends must run the same version.")
    text = config["json"]
    if not isinstance(text, str):
        raise PayloadError(f"{where} has no JSON text; both ends must run the same version.")
    document = decode(text, where)
    check_keys(document, frozenset((*keys, "kind")) | (optional & document.keys()), where)
    if document["kind"] != kind:
        raise PayloadError(f"{where} is of another kind; both ends must run the same version.")
    return document, arrays


def is_count(value: Any) -> bool:
    """Return whether it is an integer of 0 or more, and no boolean."""
    return type(value) is int and value >= 0


def is_rate(value: Any) -> bool:
    """Return whether it is a finite number above 0."""
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def study_text(study: Study) -> str:
    """Return the study as the text that travels."""
    return encode(study.model_dump(mode="json", by_alias=True), "The study")


@lru_cache(maxsize=8)
def _parsed(text: str, where: str) -> Study:
    return parse(Study, decode(text, where), where)


def read_study(text: Any, where: str) -> Study:
    """Return the checked study; hospitals that share a process share the (frozen) result.

    The study travels as a text within the document, so that it is known again without reading it.
    """
    need(isinstance(text, str), where, "the study is no text")
    try:
        return _parsed(text, where)
    except ConfigError as error:
        raise PayloadError(error.sentence) from error
