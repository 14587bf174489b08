"""What the centre writes down of every message, in ``audit.jsonl`` of the run's folder.

One place sees them all: a `Grid` around Flower's. A line says who was asked what about which study,
with the hashes of what was sent and of what came, and the heads of the hospital's own logs; whether
a reply was used is written by whoever judged it.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from protocol import audit
from protocol.code import code_hash
from protocol.config import Study
from protocol.custody import carried, heads_in, subject
from protocol.documents import digest
from protocol.errors import DataError, PayloadError
from protocol.refusal import Refusal
from server.heads import REGRESSED, KnownHeads
from server.passing import PassingGrid

__all__ = ["AUDIT_LOG", "RecordedGrid", "begin_log", "study_hash"]

log = logging.getLogger(__name__)

AUDIT_LOG = "audit.jsonl"


def study_hash(study: Study) -> str:
    """Return the SHA-256 of a study's canonical text, as it travels with every message."""
    return digest(study.model_dump(mode="json", by_alias=True))


def begin_log(run_dir: Path, study: Study, nodes: Mapping[str, int]) -> Path:
    """Write the first line of a run, or of its resumption, and return where the log lies.

    Raises
    ------
    DataError
        If the log does not end in a valid line.
    """
    path = run_dir / AUDIT_LOG
    facts = {
        "study": study.name,
        "study_hash": study_hash(study),
        "code": code_hash(),
        "version": version("concors"),
        "hospitals": dict(nodes),
    }
    audit.append(path, "run.begun", facts)
    return path


def _earlier(path: Path) -> Iterator[dict[str, Any]]:
    """Give the lines of the other runs of a consortium, in the order in which they were written.

    Only in a server's directory: there a name is one hospital, where simulations that lie side by
    side may each have another of that name.
    """
    runs = path.parent.parent
    if runs.name != "runs" or not (runs.parent / "hospitals").is_dir():
        return
    lines = []
    for other in sorted(runs.glob(f"*/{AUDIT_LOG}")):
        if other == path:
            continue
        try:
            lines += list(audit.read(other))
        except DataError as error:
            log.error("The run %s is left out: %s", other.parent.name, error.sentence)
    yield from sorted(lines, key=lambda line: str(line["time"]))


class RecordedGrid(PassingGrid):
    """A Grid that writes down what goes through it, and watches the hospitals' heads.

    Parameters
    ----------
    grid : Grid
        Flower's, or the simulation's.
    nodes : mapping
        Node id by hospital name.
    path : Path
        The run's log, begun by `begin_log`; what it says of an earlier part of the run counts, and
        so do the other runs of the consortium.

    Raises
    ------
    DataError
        If the log was altered.
    """

    def __init__(self, grid: Grid, nodes: Mapping[str, int], path: Path) -> None:
        super().__init__(grid)
        self._nodes = nodes
        self._path = path
        self._heads = KnownHeads.of([*_earlier(path), *audit.read(path)])
        self._asked: dict[str, dict[str, Any]] = {}

    def _site(self, node: int) -> str:
        return next((site for site, own in self._nodes.items() if own == node), f"node {node}")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Write down and push messages."""
        pushed, told = list(messages), []
        known: dict[int, str] = {}
        for message in pushed:
            hashes = carried(message.content, known)
            about = subject(message.metadata.message_type, message.content, hashes)
            node = message.metadata.dst_node_id
            about |= {"site": self._site(node), "node": node}
            self._heads.asked(about["site"], about["request"])
            audit.append(self._path, "sent", {**about, "carried": hashes})
            told.append(about)
        ids = list(self._grid.push_messages(pushed))
        self._asked |= {key: about for key, about in zip(ids, told, strict=False) if key}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies and write them down."""
        replies = list(self._grid.pull_messages(message_ids))
        for reply in replies:
            about = self._asked.pop(reply.metadata.reply_to_message_id, None)
            if about is not None:
                self._note(about, reply)
        return replies

    def _note(self, about: dict[str, Any], reply: Message) -> None:
        if reply.has_error():
            code = Refusal.from_error(reply.error).code
            audit.append(self._path, "received", {**about, "outcome": code})
            log.warning("%s refused %s: %s", about["site"], about["type"], code)
            return
        detail = {**about, "outcome": "answered", "carried": carried(reply.content)}
        self._note_heads(about, detail, reply.content)
        log.info("%s answered %s", about["site"], about["type"])

    def _note_heads(
        self, about: dict[str, Any], detail: dict[str, Any], content: RecordDict
    ) -> None:
        site = about["site"]
        try:
            heads = heads_in(content, f"The reply of {site}")
        except PayloadError as error:
            audit.append(self._path, "received", {**detail, "heads_refused": error.code})
            return
        if heads is None:
            audit.append(self._path, "received", detail)
            return
        audit.append(self._path, "received", {**detail, "heads": heads.to_dict()})
        for found in self._heads.told(site, about["request"], heads):
            audit.append(self._path, REGRESSED, {"site": site, **found.to_dict()})
            log.critical(
                "The %s of %s %s: %d lines were noted and %d are told now; it was cut, replaced "
                "or begun anew, so ask its engineer.",
                found.which,
                site,
                found.how,
                found.noted.num_lines,
                found.told.num_lines,
            )
