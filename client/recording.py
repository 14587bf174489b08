"""What the hospital writes down of every message, in ``.concors/audit.jsonl``.

A line says who asked what about which study, by which code on which data the answer was made, the
hashes of what came and left, and what had been spent of the privacy budget. It holds hashes,
names of ours and figures of the policy, and nothing of a patient: a copy can be given away.
"""

import logging
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict

from client.location import site_directory
from client.policy import site_ledger
from client.site import load_site
from protocol import audit
from protocol.code import code_hash
from protocol.custody import Heads, attach_heads, carried, subject
from protocol.errors import ConcorsError, PrivacyError
from protocol.refusal import Refusal

__all__ = ["audit_log", "record_answer", "record_refusal"]

log = logging.getLogger(__name__)


def audit_log(site_dir: Path) -> Path:
    """Return where the hospital's audit log lies."""
    return site_dir / ".concors" / "audit.jsonl"


def record_answer(
    site_dir: Path,
    message: Message,
    context: Context,
    content: RecordDict,
    *,
    site: str,
    data: str | None = None,
) -> None:
    """Write down that a message is being answered, and put the heads of both logs into the answer.

    Parameters
    ----------
    content : RecordDict
        What leaves; noise and masks are in it already.
    data : str, optional
        `client.hospital.Hospital.data_hash`, where the answer is made of patients' data.

    Raises
    ------
    DataError
        If the log does not end in a valid line: without a record nothing leaves.
    """
    about = _about(message, context, site)
    budget, ledger, spent = _budget(site_dir, about.get("study"))
    facts = {**about, "outcome": "answered", "sent": carried(content), **budget}
    if data is not None:
        facts["data"] = data
    head = audit.add(audit_log(site_dir), message.metadata.message_type, facts)
    attach_heads(content, Heads(head, ledger, spent))
    log.info("answered %s", message.metadata.message_type, extra=_told(about))


def record_refusal(message: Message, context: Context, refusal: Refusal) -> None:
    """Write down that a message was refused, as far as there is a hospital to write it at."""
    code = refusal.code
    try:
        site_dir = site_directory(context)
        about = _about(message, context, load_site(site_dir).name)
        path = audit_log(site_dir)
        path.parent.mkdir(exist_ok=True)
        told = {**about, "outcome": code, "sentence": refusal.sentence}
        audit.append(path, message.metadata.message_type, told)
        log.warning("refused %s: %s", message.metadata.message_type, code, extra=_told(about))
    except (ConcorsError, OSError) as error:
        why = error.sentence if isinstance(error, ConcorsError) else type(error).__name__
        kind = message.metadata.message_type
        log.error("refused %s: %s, which could not be written down: %s", kind, code, why)


def _about(message: Message, context: Context, site: str) -> dict[str, Any]:
    received = carried(message.content)
    about = subject(message.metadata.message_type, message.content, received)
    return {
        **about,
        "site": site,
        "node": context.node_id,
        "received": received,
        "code": code_hash(),
    }


def _told(about: dict[str, Any]) -> dict[str, Any]:
    return {key: about[key] for key in ("site", "study", "stage", "round") if key in about}


def _budget(
    site_dir: Path, study: str | None
) -> tuple[dict[str, Any], audit.Head | None, tuple[float, float] | None]:
    """Return what the line says of the privacy ledger, its head, and what the study has spent."""
    try:
        standing = site_ledger(site_dir).standing()
    except PrivacyError as error:
        # Who spends no budget can still be answered; the centre sees that the ledger is gone.
        return {"ledger": error.code}, None, None
    if standing is None:
        return {"ledger": None}, None, None
    head, entries = standing
    facts: dict[str, Any] = {"ledger": [*head]}
    if entries:
        newest = entries[-1]
        facts["epsilon"] = {"delta": newest.delta, "lifetime": newest.lifetime_epsilon}
    own = [entry for entry in entries if entry.study == study]
    if not own:
        return facts, head, None
    facts["epsilon"]["of_study"] = own[-1].study_epsilon
    return facts, head, (own[-1].study_epsilon, own[-1].delta)
