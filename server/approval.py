"""A hospital takes part in a run only after its engineer approved the run's manifest.

The manifest is the first thing a hospital of the study is asked. Until the answer is yes the
hospital does not count as joined, and is asked again; who waits is written into the run's folder,
where ``concors-server status`` reads it.
"""

import json
from pathlib import Path

from flwr.app import RecordDict

from deployment.private_files import write_atomic
from protocol.errors import PayloadError
from protocol.manifest_message import DECISIONS
from protocol.payload import Answer, Refusal

__all__ = ["decision_of", "read_approvals", "write_approvals"]

FILE = "approvals.json"
AWAITS = "E810"
SENTENCES = {
    "waiting": "It awaits approval there; ask the hospital's engineer to look at the study.",
    "declined": "The hospital declined the study; ask its engineer why.",
}


def decision_of(outcome: RecordDict | Refusal, site: str) -> Refusal | None:
    """Return None where a hospital approved a manifest, else why it does not take part yet."""
    if isinstance(outcome, Refusal):
        return outcome
    try:
        answer = Answer.from_records(outcome, f"The decision of {site}").document
    except PayloadError as error:
        return Refusal.of(error)
    decision = answer.get("decision")
    if decision not in DECISIONS:
        return Refusal.of(
            PayloadError(f"The decision of {site} is unknown; both ends must run the same version.")
        )
    return None if decision == "approved" else Refusal(AWAITS, SENTENCES[str(decision)])


def write_approvals(run_dir: Path, approvals: dict[str, str]) -> None:
    """Write where each hospital of a run stands: ``approved``, or a code and a sentence."""
    write_atomic(run_dir / FILE, json.dumps(approvals, sort_keys=True).encode())


def read_approvals(run_dir: Path) -> dict[str, str]:
    """Return what `write_approvals` wrote last; empty where a run has not asked yet."""
    path = run_dir / FILE
    return dict(json.loads(path.read_text())) if path.is_file() else {}
