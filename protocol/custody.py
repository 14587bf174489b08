"""What both ends write down of a message, so that one log can be held against the other.

A message is known by the SHA-256 of its document and by the fingerprints of the arrays it carries;
both are taken of what travels, so that they are the same at both ends whatever was packed how. Each
reply also brings the heads of the hospital's log and of its privacy ledger: a hash that says
nothing, and that a log which was cut, restored or begun anew can no longer show.
"""

import hashlib
from typing import Any, NamedTuple, Self

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from protocol.arrays import fingerprint
from protocol.audit import Head
from protocol.documents import check_keys, decode, digest, encode
from protocol.errors import PayloadError
from protocol.records import from_array_record

__all__ = ["HEADS", "Heads", "attach_heads", "carried", "heads_in", "subject", "weighed"]

# Under which key the heads lie beside the text of a reply's document.
HEADS = "heads"
MAX_BYTES = 4 * 2**30
UNREADABLE = "unreadable"
HEX = frozenset("0123456789abcdef")


class Heads(NamedTuple):
    """Where a hospital's two logs stand.

    Attributes
    ----------
    log : Head
        Of its audit log, with the line about the reply that brings it.
    ledger : Head or None
        Of its privacy ledger; None where there is none.
    spent : tuple of float or None
        Epsilon that the study has cost the hospital's patients by now, and at which delta. Both
        follow from the policy and the number of rounds, not from a patient.
    """

    log: Head
    ledger: Head | None
    spent: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "log": [*self.log],
            "ledger": self.ledger and [*self.ledger],
            "spent": self.spent and [*self.spent],
        }

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
        """
        if not isinstance(values, dict):
            raise PayloadError(f"{where} has no heads of its logs; install one version everywhere.")
        check_keys(values, frozenset(cls._fields), where)
        ledger, spent = values["ledger"], values["spent"]
        return cls(
            _head(values["log"], where),
            None if ledger is None else _head(ledger, where),
            None if spent is None else _spent(spent, where),
        )


def _head(value: Any, where: str) -> Head:
    good = isinstance(value, list) and len(value) == 2
    good = good and type(value[0]) is int and 0 <= value[0] < 2**53
    if not (good and isinstance(value[1], str) and len(value[1]) == 64 and set(value[1]) <= HEX):
        raise PayloadError(
            f"{where} has no heads of its logs that can be read; install one version everywhere."
        )
    return Head(value[0], value[1])


def _spent(value: Any, where: str) -> tuple[float, float]:
    good = isinstance(value, list) and len(value) == 2
    if not (good and all(type(part) in (int, float) and part >= 0 for part in value)):
        raise PayloadError(f"{where} tells no epsilon and delta; install one version everywhere.")
    return float(value[0]), float(value[1])


def attach_heads(records: RecordDict, heads: Heads) -> None:
    """Put the heads into a reply, beside its document: what the document says stays the same."""
    document = records["document"]
    if isinstance(document, ConfigRecord):
        document[HEADS] = encode(heads.to_dict(), "The heads of the logs")


def heads_in(records: RecordDict, where: str) -> Heads | None:
    """Return the heads a reply brings, or None where it brings none.

    Raises
    ------
    PayloadError
        If they cannot be read.
    """
    document = records.get("document")
    text = document.get(HEADS) if isinstance(document, ConfigRecord) else None
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > 1000:
        raise PayloadError(f"{where} has no heads of its logs that can be read; ask its engineer.")
    return Heads.from_dict(decode(text, where), where)


def _text(records: RecordDict) -> str:
    document = records.get("document")
    text = document.get("json") if isinstance(document, ConfigRecord) else None
    return text if isinstance(text, str) else ""


def weighed(record: ArrayRecord) -> str:
    """Return the fingerprint of arrays as they travel; ``"unreadable"`` where they are none."""
    try:
        return fingerprint(from_array_record(record, "A message", MAX_BYTES))
    except PayloadError:
        return UNREADABLE


def carried(records: RecordDict, known: dict[int, str] | None = None) -> dict[str, str]:
    """Return the hashes of a message: ``document``, and every record of arrays by its name.

    Parameters
    ----------
    known : dict, optional
        Fingerprints by ``id`` of the record, for messages that share theirs; what is computed is
        added. It is of use only while these messages live.
    """
    known = {} if known is None else known
    found = {"document": hashlib.sha256(_text(records).encode()).hexdigest()}
    for name in sorted(records):
        record = records[name]
        if isinstance(record, ArrayRecord):
            if id(record) not in known:
                known[id(record)] = weighed(record)
            found[name] = known[id(record)]
    return found


def subject(message_type: str, records: RecordDict, hashes: dict[str, str]) -> dict[str, Any]:
    """Return what a request is about: JSON values, none of which is of a patient.

    ``request`` identifies it (type, document and arrays), ``study_hash`` is the SHA-256 of the
    study's canonical text. What a document does not say, or says in another form, is left out.
    """
    about: dict[str, Any] = {
        "type": message_type,
        "request": digest({"type": message_type, **hashes}),
    }
    try:
        document = decode(_text(records), "A request")
        study = document.get("study")
        if isinstance(study, str):
            about["study"] = str(decode(study, "A study").get("name"))[:64]
            about["study_hash"] = hashlib.sha256(study.encode()).hexdigest()
    except PayloadError:
        return about
    for key, kind in (("stage", str), ("round_index", int)):
        if type(document.get(key)) is kind:
            about[key.removesuffix("_index")] = document[key]
    return about
