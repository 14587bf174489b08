"""A run's log against a copy of a hospital's: what one end noted, the other must have noted too.

Every answer the centre received stands in the hospital's log with the hashes of what came and of
what left; every answer that the hospital noted in the time of the run was asked for by the centre;
and every head that the centre noted is a line of the copy.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from protocol import audit
from protocol.custody import Heads
from protocol.errors import DataError

__all__ = ["compare_logs"]

# Said by the centre or by Flower of a hospital that did not say anything itself, or by what watches
# over the hospital's work (expired, hung, killed), in place of the work that would have noted it.
NOT_THE_HOSPITALS = frozenset({"E400", "E501", "E502", "E503", "E504", "E830"})
# Who somebody is, and what a study is going to be: nothing of a patient, and no line of its own.
NOT_NOTED = frozenset({"query.hello", "query.manifest"})
Lines = Sequence[Mapping[str, Any]]


def compare_logs(lines: Lines, path: Path) -> str:
    """Return what was found to agree.

    Parameters
    ----------
    lines : sequence of mapping
        The run's log (`server.recording`).
    path : Path
        A copy of one hospital's audit log (`client.recording`).

    Raises
    ------
    DataError
        Naming the first line of either that has no counterpart.
    """
    theirs: Lines = list(audit.read(path))
    site = _site(theirs)
    sent = {line["detail"]["request"]: line for line in _of(lines, "sent", site)}
    received = list(_of(lines, "received", site))
    if not sent:
        raise DataError(f"it is the log of {site}, which this run did not ask anything.")
    first, last = _contained(received, theirs, site)
    noted: dict[str, list[Mapping[str, Any]]] = {}
    for line in theirs:
        noted.setdefault(line["detail"].get("request", ""), []).append(line)
    for line in received:
        _answered(line, sent, noted, site)
    studies = {line["detail"].get("study_hash") for line in sent.values()}
    for line in theirs[first:last]:
        detail = line["detail"]
        unknown = detail.get("request") is not None and detail["request"] not in sent
        if unknown and detail.get("study_hash") in studies:
            raise DataError(
                f"line {line['index'] + 1} of it is about a request of this study that the run's "
                "log does not have; the run's log was written anew, or another run asked."
            )
    return f"{site}: {len(sent)} requests and {len(received)} replies agree with its log"


def _site(theirs: Lines) -> str:
    names = {line["detail"]["site"] for line in theirs if "site" in line["detail"]}
    if len(names) != 1:
        raise DataError(
            f"it names {len(names)} hospitals, expected one; give a copy of "
            ".concors/audit.jsonl of one hospital."
        )
    return str(names.pop())


def _of(lines: Lines, event: str, site: str) -> Iterator[Mapping[str, Any]]:
    return (line for line in lines if line["event"] == event and line["detail"]["site"] == site)


def _contained(received: Sequence[Mapping[str, Any]], theirs: Lines, site: str) -> tuple[int, int]:
    """Check that every head that was noted is in the copy; return the lines between."""
    ends = []
    for line in received:
        if "heads" not in line["detail"]:
            continue
        heads = Heads.from_dict(line["detail"]["heads"], "A line of the log")
        count, name = heads.log
        where = f"line {line['index'] + 1} of the run's log noted {count} lines of {site}'s log"
        if count > len(theirs):
            raise DataError(
                f"{where}, and the copy has {len(theirs)}; lines were cut, or it is old."
            )
        own = theirs[count - 1] if count else None
        if own is None or own["hash"] != name:
            raise DataError(f"{where} with another newest one than the copy has; it was rewritten.")
        ledger = own["detail"].get("ledger")
        told = None if heads.ledger is None else [*heads.ledger]
        if (ledger if isinstance(ledger, list) else None) != told:
            raise DataError(f"{where}, whose ledger was another one than the copy says.")
        ends.append(count)
    return (min(ends) - 1, max(ends)) if ends else (0, 0)


def _answered(
    line: Mapping[str, Any],
    sent: Mapping[str, Mapping[str, Any]],
    noted: Mapping[str, Sequence[Mapping[str, Any]]],
    site: str,
) -> None:
    detail, number = line["detail"], line["index"] + 1
    if detail["outcome"] in NOT_THE_HOSPITALS or detail["type"] in NOT_NOTED:
        return
    own = [each["detail"] for each in noted.get(detail["request"], [])]
    same = [each for each in own if each.get("outcome") == detail["outcome"]]
    if not same:
        raise DataError(
            f"line {number} of the run's log is a reply of {site} ({detail['type']}) that its own "
            "log does not have; it was not made there, or the copy is of another log."
        )
    asked = sent[detail["request"]]["detail"]["carried"]
    if not any(each["received"] == asked for each in same):
        raise DataError(f"line {number}: {site} was asked with other weights than its log says.")
    if detail["outcome"] == "answered" and not any(
        each["sent"] == detail["carried"] for each in same
    ):
        raise DataError(f"line {number}: {site} sent other weights than its log says.")
