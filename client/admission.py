"""Whether a request may be answered here: the hospital's approval of its study, and its policy."""

import hashlib

from flwr.app import ConfigRecord, Message

from protocol.documents import decode
from protocol.errors import PayloadError

__all__ = ["study_hash_of"]


def study_hash_of(message: Message) -> str | None:
    """Return the hash of the study a request is of, as its text travels; None where it has none."""
    if not message.has_content():
        return None
    record = message.content.get("document")
    text = record.get("json") if isinstance(record, ConfigRecord) else None
    if not isinstance(text, str):
        return None
    try:
        study = decode(text, "The request").get("study")
    except PayloadError:
        return None
    return hashlib.sha256(study.encode()).hexdigest() if isinstance(study, str) else None
