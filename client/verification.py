"""Whether the hospital's own record holds: its audit log, its privacy ledger, and the two together.

The audit log names the ledger's head in every line, so that a ledger that was put back from an
older copy together with its head file is found here, and not only by the centre.
"""

from collections.abc import Iterator
from pathlib import Path

from client.policy import site_ledger
from client.recording import audit_log
from protocol import audit
from protocol.checks import Check, examined
from protocol.errors import DataError

__all__ = ["verify_site"]


def verify_site(site_dir: Path, noted: str | None = None) -> Iterator[Check]:
    """Give what is found of each part of a hospital's record.

    Parameters
    ----------
    noted : str, optional
        A hash that the centre noted of the audit log; it must stand in it.
    """
    yield examined("audit log", lambda: _log(audit_log(site_dir), noted))
    yield examined("privacy ledger", lambda: _ledger(site_dir))
    yield examined("ledger as the audit log saw it", lambda: _both(site_dir))


def _log(path: Path, noted: str | None) -> str:
    if not path.exists() and noted is None:
        return "none yet, nothing was answered"
    if not path.exists():
        raise DataError("it is gone, and the centre noted a line of it; put the newest copy back.")
    lines = list(audit.read(path))
    head = audit.verify(path, head=noted)
    refused = sum(line["detail"].get("outcome", "answered") != "answered" for line in lines)
    return f"{head.num_lines} lines, {refused} of them refusals, newest {head.hash}"


def _ledger(site_dir: Path) -> str:
    standing = site_ledger(site_dir).standing()
    if standing is None:
        return "none, nothing was spent"
    head, entries = standing
    if not entries:
        return f"{head.num_lines} lines, newest {head.hash}"
    newest = entries[-1]
    return (
        f"{head.num_lines} lines, epsilon {newest.lifetime_epsilon:.6g} at delta "
        f"{newest.delta:g} in all, newest {head.hash}"
    )


def _both(site_dir: Path) -> str:
    log = audit_log(site_dir)
    ledger = site_dir / ".concors" / "privacy" / "ledger.jsonl"
    hashes = [audit.START]
    if ledger.exists():
        hashes += [line["hash"] for line in audit.read(ledger)]
    seen = 0
    for line in audit.read(log) if log.exists() else ():
        noted = line["detail"].get("ledger")
        if not isinstance(noted, list):
            continue
        count, name = noted
        if count >= len(hashes) or hashes[count] != name:
            raise DataError(
                f"line {line['index'] + 1} of the audit log noted {count} lines of the ledger, and "
                "it no longer has them so; an older copy was put back, so put the newest back: "
                "without it what these patients have spent is unknown."
            )
        seen += 1
    return f"{seen} lines of the audit log noted it, and it has all they noted"
