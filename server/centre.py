"""The coordinating centre while one study runs: whom it can reach, and how it asks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from protocol.arrays import Arrays
from protocol.config import Study
from protocol.errors import QuorumError
from protocol.payload import Answer, Question, Refusal
from server.progress import Progress
from server.rounds import ask

__all__ = ["Centre"]


@dataclass(frozen=True)
class Centre:
    """What every stage needs: the grid, the hospitals' nodes, the study and the run's folder."""

    grid: Grid
    nodes: Mapping[str, int]
    study: Study
    run_dir: Path
    progress: Progress

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
        question = Question(self.study, message_type, agreed, arrays).to_records()
        documents: dict[str, dict[str, Any]] = {}
        refusals: list[str] = []
        replies = ask(
            self.grid, nodes, lambda _site: question, message_type, self.study.rounds
        )
        for done, (site, reply) in enumerate(replies, start=1):
            if isinstance(reply, Refusal):
                refusals.append(f"{site}: {reply.sentence}")
            else:
                documents[site] = Answer.from_records(reply, site).document
            self.progress.step(message_type, done, len(nodes), site)
        if len(documents) < self.study.rounds.quorum * len(nodes):
            raise QuorumError(
                f"{len(documents)} of {len(nodes)} hospitals answered {message_type} where the "
                f"quorum is {self.study.rounds.quorum:.0%}; the others said: {' | '.join(refusals)}"
            )
        return documents
