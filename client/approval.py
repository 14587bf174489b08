"""Whether somebody at the hospital has approved the study that a request is of."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import ConfigRecord, Message

from client.manifests import covering
from client.membership import has_joined, load_welcome
from deployment.papers import read_manifest
from protocol.code import code_hash
from protocol.documents import decode
from protocol.errors import ConcorsError, PayloadError, PolicyError

__all__ = ["is_approved", "require_approval", "study_hash_of"]


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


def is_approved(site_dir: Path, study_hash: str) -> bool:
    """Say whether the study needs no approval here or has it, and its manifest still holds."""
    if not has_joined(site_dir):
        return True
    try:
        require_approval(site_dir, study_hash)
    except ConcorsError:
        return False
    return True


def require_approval(site_dir: Path, study_hash: str | None) -> None:
    """Refuse a study that the hospital's engineer has not approved.

    Raises
    ------
    PolicyError
        If there is no manifest of it, no approval, or other code is installed by now.
    PaperError
        If its manifest has expired.
    """
    known = covering(site_dir, study_hash) if study_hash else None
    if known is None:
        raise PolicyError(
            f"This hospital was never shown a manifest of the study {(study_hash or 'none')[:8]}; "
            "the server must send one first, and the hospital's engineer approve it."
        )
    if known.decision != "approved":
        raise PolicyError(
            f"The study {known.study.name} ({known.study_hash[:8]}) is {known.decision} at this "
            "hospital; its engineer decides with concors-client studies and approve."
        )
    # Signed, not expired, and for the code that is installed now: as when it came.
    welcome = load_welcome(site_dir)
    paper = read_manifest(
        known.text, coordinator_key=welcome["coordinator_key"], now=datetime.now(UTC)
    )
    if paper["code_hash"] != code_hash():
        raise PolicyError(
            f"The study {known.study.name} was approved for the code {paper['code_hash'][:8]}, and "
            f"{code_hash()[:8]} runs here now; the server must send a new manifest."
        )
