"""Whether the logs of a hospital only ever grow: the heads it told, held against each other.

A head is the number of lines of a log and the hash of its newest. A log that was cut, put back from
an older copy, or deleted together with its own head file tells a smaller number, or another hash
for a number that was told before. A reply may be an old one (a hospital repeats a kept reply to a
request that is asked again), so what it tells is held against what was known when its request was
first sent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from protocol import audit
from protocol.audit import START, Head
from protocol.custody import Heads
from protocol.errors import PayloadError
from server.results import BrokenLog

__all__ = ["REGRESSED", "Break", "KnownHeads", "broken_logs"]

REGRESSED = "head.regressed"
Which = Literal["audit log", "privacy ledger"]
NOTHING = Head(0, START)


class Break(NamedTuple):
    """One log that does not go on from where it stood."""

    which: Which
    how: Literal["went back", "contradicts itself"]
    noted: Head
    told: Head

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "which": self.which,
            "how": self.how,
            "noted": [*self.noted],
            "told": [*self.told],
        }


@dataclass
class _Log:
    """What was told of one log of one hospital."""

    newest: Head = NOTHING
    told: dict[int, str] = field(default_factory=lambda: {0: START})
    floors: dict[str, int] = field(default_factory=dict)

    def judge(self, which: Which, request: str, head: Head) -> Break | None:
        noted = self.told.get(head.num_lines)
        if head.num_lines < self.floors.get(request, self.newest.num_lines):
            found = Break(which, "went back", self.newest, head)
        elif noted is not None and noted != head.hash:
            found = Break(which, "contradicts itself", Head(head.num_lines, noted), head)
        else:
            self.told[head.num_lines] = head.hash
            self.newest = max(self.newest, head)
            return None
        # From here on the log is another one; it is told once that it is.
        self.newest, self.floors = head, {}
        self.told = {0: START, head.num_lines: head.hash}
        return found


class KnownHeads:
    """The heads of every hospital's logs, as far as they were told."""

    def __init__(self) -> None:
        self._logs: dict[tuple[str, Which], _Log] = {}

    def _log(self, site: str, which: Which) -> _Log:
        return self._logs.setdefault((site, which), _Log())

    def asked(self, site: str, request: str) -> None:
        """Note that a request is being sent, and what is known by then."""
        for which in ("audit log", "privacy ledger"):
            log = self._log(site, which)
            log.floors.setdefault(request, log.newest.num_lines)

    def told(self, site: str, request: str, heads: Heads) -> list[Break]:
        """Note the heads in the reply to a request, and return what is wrong with them."""
        parts: tuple[tuple[Which, Head | None], ...] = (
            ("audit log", heads.log),
            ("privacy ledger", heads.ledger),
        )
        found = [
            self._log(site, which).judge(which, request, head or NOTHING) for which, head in parts
        ]
        return [each for each in found if each is not None]

    def newest(self, site: str) -> dict[str, Head]:
        """Return the newest head of each log of a hospital that was told."""
        logs = {which: log for (name, which), log in self._logs.items() if name == site}
        return {which: log.newest for which, log in logs.items()}

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> "KnownHeads":
        """Return what the lines of a run's log (`server.recording`) say.

        Raises
        ------
        PayloadError
            If a line about a message is not what this version writes.
        """
        known = cls()
        for line in lines:
            detail = line["detail"]
            try:
                if line["event"] == "sent":
                    known.asked(detail["site"], detail["request"])
                elif line["event"] == "received" and "heads" in detail:
                    heads = Heads.from_dict(detail["heads"], "A line of the log")
                    known.told(detail["site"], detail["request"], heads)
            except KeyError as error:
                raise PayloadError(
                    f"line {line['index'] + 1} of the audit log is of another version; go on with "
                    "the version that wrote it."
                ) from error
        return known


def broken_logs(log: Path) -> tuple[BrokenLog, ...]:
    """Return the hospitals' logs that a run found broken, each once, sorted."""
    found = {
        (line["detail"]["site"], line["detail"]["which"], line["detail"]["how"])
        for line in audit.read(log)
        if line["event"] == REGRESSED
    }
    return tuple(
        BrokenLog(hospital=site, which=which, how=how) for site, which, how in sorted(found)
    )
