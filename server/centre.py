"""The coordinating centre while one study runs: whom it can reach, and how it asks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from protocol import audit
from protocol.arrays import Arrays
from protocol.config import Study
from protocol.payload import Question
from server.hospitals import collect
from server.progress import Progress

__all__ = ["Centre"]


@dataclass(frozen=True)
class Centre:
    """What every stage needs: the grid, the hospitals' nodes, the study and the run's folder."""

    grid: Grid
    nodes: Mapping[str, int]
    study: Study
    run_dir: Path
    progress: Progress

    @property
    def audit_log(self) -> Path:
        return self.run_dir / "audit.jsonl"

    def answers(
        self,
        message_type: str,
        sites: Iterable[str],
        agreed: dict[str, Any],
        arrays: Arrays | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Ask hospitals one question and return the documents of those that answered.

        Raises
        ------
        QuorumError
            If fewer than the quorum answered; the sentence carries what the others said.
        """
        nodes = {site: self.nodes[site] for site in sites}
        topic = message_type.partition(".")[2]
        self.progress.step(message_type, 0, len(nodes))
        answers, refused = collect(
            self.grid,
            nodes,
            Question(self.study, topic, agreed, arrays),
            message_type,
            deadline_s=self.study.rounds.deadline_s,
            quorum=self.study.rounds.quorum,
        )
        for site in sorted(nodes):
            outcome = "answered" if site in answers else f"refused {refused[site].code}"
            audit.append(self.audit_log, message_type, {"site": site, "outcome": outcome})
        self.progress.step(message_type, len(answers), len(nodes))
        return answers
