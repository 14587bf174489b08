"""The coordinating centre while one study runs: whom it can reach, and how it asks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp import Grid

from protocol import audit
from protocol.arrays import Arrays
from protocol.config import Study
from protocol.errors import BudgetError, PayloadError, PrivacyError
from protocol.payload import Answer, Question, Refusal
from server.asking import ask
from server.hospitals import require_quorum
from server.progress import Progress

__all__ = ["DECLINED", "Centre"]

DECLINED = frozenset({BudgetError.code, PrivacyError.code})
"""Codes by which a hospital says that its privacy policy forbids an answer, or a further one."""


@dataclass(frozen=True)
class Centre:
    """What every stage needs: the grid, the hospitals' nodes, the study and the run's folder.

    ``sums`` holds the sessions of secure sums, by question and group (see `server.telling`).
    """

    grid: Grid
    nodes: Mapping[str, int]
    study: Study
    run_dir: Path
    progress: Progress
    sums: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def audit_log(self) -> Path:
        return self.run_dir / "audit.jsonl"

    def answers(
        self,
        message_type: str,
        sites: Iterable[str],
        agreed: dict[str, Any],
        arrays: Arrays | None = None,
        *,
        may_decline: bool = False,
    ) -> dict[str, dict[str, Any]]:
        """Ask hospitals one question and return the documents of those that answered.

        Parameters
        ----------
        may_decline : bool
            Whether the study goes on without the hospitals whose privacy policy forbids the answer.
            They are not missing: the quorum is one of the others, and there may be none.

        Raises
        ------
        QuorumError
            If fewer than the quorum answered; the sentence carries what the others said.
        """
        nodes = {site: self.nodes[site] for site in sites}
        topic = message_type.partition(".")[2]
        self.progress.asked(message_type, 0, len(nodes), nodes)
        request = Question(self.study, topic, agreed, arrays).to_records()
        answers: dict[str, dict[str, Any]] = {}
        refused: dict[str, Refusal] = {}
        replies = ask(self.grid, nodes, request, message_type, self.study.rounds)
        for done, (site, reply) in enumerate(replies, start=1):
            outcome = reply if isinstance(reply, Refusal) else _document(site, reply)
            if isinstance(outcome, Refusal):
                refused[site] = outcome
            else:
                answers[site] = outcome
            refusal = outcome if isinstance(outcome, Refusal) else None
            said = outcome.code if isinstance(outcome, Refusal) else "answered"
            audit.append(self.audit_log, message_type, {"site": site, "outcome": said})
            self.progress.heard(message_type, done, len(nodes), site, refusal)
        if may_decline:
            refused = {site: said for site, said in refused.items() if said.code not in DECLINED}
        if answers or refused or not may_decline:
            quorum = self.study.rounds.quorum
            require_quorum(list(answers), refused, quorum, f"The question '{topic}'")
        return answers

    def note(
        self, message_type: str, answered: Iterable[str], refused: Mapping[str, Refusal]
    ) -> None:
        """Append to the audit log who was in a secure sum, and who was not."""
        said = dict.fromkeys(answered, "summed") | {s: r.code for s, r in refused.items()}
        for site in sorted(said):
            audit.append(self.audit_log, message_type, {"site": site, "outcome": said[site]})


def _document(site: str, records: RecordDict) -> dict[str, Any] | Refusal:
    try:
        return Answer.from_records(records, f"The answer of {site}").document
    except PayloadError as error:
        return Refusal.of(error)
