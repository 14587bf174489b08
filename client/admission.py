"""Whether a request may be answered here: the hospital's approval of its study, and its policy.

Simulations and hospitals that have joined no consortium need no approval; what a ``policy.yaml``
says holds everywhere.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from flwr.app import Message

from client.approval import require_approval, study_hash_of
from client.hospital import Hospital
from client.manifests import check_terms
from client.membership import has_joined
from client.policy import load_policy
from client.site import load_site
from protocol.config import Study
from protocol.errors import PolicyError

__all__ = ["admit", "admit_cohort"]

MEGABYTE = 1e6


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
    policy = load_policy(site_dir, load_site(site_dir))
    size_mb = _size_bytes(message) / MEGABYTE
    if size_mb > policy.max_payload_mb:
        raise PolicyError(
            f"The request has {size_mb:.1f} MB, and this hospital's policy allows "
            f"{policy.max_payload_mb:g} MB; send less, or ask the hospital to allow more."
        )
    if has_joined(site_dir):
        require_approval(site_dir, study_hash_of(message))
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
    raise PolicyError(
        f"This hospital takes part with at least {least.patients} patients and {least.events} "
        "events only, and has fewer; leave it out, or ask it to lower minimum in its policy."
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
