"""Whether a request may be answered here: the hospital's approval of its study, and its policy.

Simulations and hospitals that have joined no consortium need no approval; what a ``policy.yaml``
says holds everywhere.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import ConfigRecord, Message

from client.hospital import Hospital
from client.manifests import audit_log, check_terms, find
from client.membership import has_joined, load_welcome
from client.policy import load_policy
from client.site import load_site
from deployment.papers import read_manifest
from protocol import audit
from protocol.code import code_hash
from protocol.config import Study
from protocol.documents import decode
from protocol.errors import ConcorsError, PayloadError, PolicyError

__all__ = ["admit", "admit_cohort", "is_approved", "recorded", "study_hash_of"]

MEGABYTE = 1e6


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


def admit(
    site_dir: Path, study: Study, message: Message, *, now: Callable[[], datetime] = datetime.now
) -> None:
    """Refuse a request of a study that nobody here approved, or that the policy does not allow.

    Parameters
    ----------
    study : Study
        Of the request.
    now : callable
        The local time; for `datetime.now`.

    Raises
    ------
    PolicyError
        Naming what is missing or not allowed.
    PaperError
        If the study's manifest has expired.
    """
    kind = message.metadata.message_type
    with recorded(site_dir, kind, study.name, study_hash_of(message)):
        policy = load_policy(site_dir, load_site(site_dir))
        size_mb = _size_bytes(message) / MEGABYTE
        if size_mb > policy.max_payload_mb:
            raise PolicyError(
                f"The request has {size_mb:.1f} MB, and this hospital's policy allows "
                f"{policy.max_payload_mb:g} MB; send less, or ask the hospital to allow more."
            )
        if has_joined(site_dir):
            _require_approval(site_dir, study_hash_of(message))
        check_terms(policy, study, {})
        if kind.startswith("train") and policy.hours:
            moment = now()
            if not any(window.holds(moment) for window in policy.hours):
                windows = ", ".join(f"{' '.join(w.days)} {w.begin}-{w.until}" for w in policy.hours)
                raise PolicyError(
                    f"This hospital trains at certain hours only ({windows}), and there it is "
                    f"{moment:%a %H:%M}; ask again then."
                )


def admit_cohort(hospital: Hospital, study: Study, message: Message) -> None:
    """Refuse where the hospital has fewer patients or events than its policy wants for a study.

    Raises
    ------
    PolicyError
        Without the number the hospital has.
    """
    least = load_policy(hospital.directory, hospital.config).minimum
    patients = hospital.patients
    events = sum(patient.event > 0 for patient in patients)
    if len(patients) >= least.patients and events >= least.events:
        return
    with recorded(
        hospital.directory, message.metadata.message_type, study.name, study_hash_of(message)
    ):
        raise PolicyError(
            f"This hospital takes part with at least {least.patients} patients and {least.events} "
            "events only, and has fewer; leave it out, or ask it to lower minimum in its policy."
        )


def is_approved(site_dir: Path, study_hash: str) -> bool:
    """Say whether the study needs no approval here or has it, and its manifest still holds."""
    if not has_joined(site_dir):
        return True
    try:
        _require_approval(site_dir, study_hash)
    except ConcorsError:
        return False
    return True


def _require_approval(site_dir: Path, study_hash: str | None) -> None:
    known = find(site_dir, study_hash) if study_hash else None
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


def _size_bytes(message: Message) -> int:
    content = message.content
    arrays = sum(
        len(array.data) for record in content.array_records.values() for array in record.values()
    )
    texts = sum(
        len(value)
        for record in content.config_records.values()
        for value in record.values()
        if isinstance(value, str | bytes)
    )
    return arrays + texts


@contextmanager
def recorded(
    site_dir: Path, kind: str, study: str | None, study_hash: str | None
) -> Iterator[None]:
    """Write each refusal that is raised inside into the hospital's audit log, and pass it on."""
    try:
        yield
    except ConcorsError as error:
        told = {"message": kind, "study": study, "hash": study_hash}
        told |= {"code": error.code, "sentence": error.sentence}
        audit.append(audit_log(site_dir), "refused", told, sync=True)
        raise
