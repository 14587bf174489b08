"""What a run has written, read without trusting it to be whole: it may be writing just now."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from protocol.config import Study
from protocol.documents import MAX_DOCUMENT_BYTES, decode
from protocol.errors import ConfigError, PayloadError
from server.results import Results, load_results

__all__ = ["STAGES", "RunFiles", "document", "read_files", "tail"]

# A line of a round is about 150 bytes: a round of a thousand hospitals lies within this.
TAIL_BYTES = 512 * 1024
STAGES = ("sort", "segment", "prognosis")
TRACES = ("study.json", "progress.jsonl", "audit.jsonl", "results.json", "run.json", *STAGES)


@dataclass(frozen=True)
class RunFiles:
    """The files of a run's folder, decoded; empty where there is none.

    Attributes
    ----------
    steps, events : list of dict
        The newest lines of ``progress.jsonl`` and ``audit.jsonl``.
    histories : dict
        Rounds by stage, from the newest checkpoint.
    wanted : dict
        ``run.json``: what the coordinator wants of the run, where a server keeps it.
    revoked : frozenset of str
        Hospitals that are no longer members of the server's consortium.
    """

    study: Study | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    histories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    results: Results | None = None
    wanted: dict[str, Any] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    has_report: bool = False


def tail(path: Path, max_bytes: int = TAIL_BYTES) -> list[dict[str, Any]]:
    """Return the last whole lines of a JSON-lines file; a line that is no object is passed over."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            start = max(0, size - max_bytes)
            stream.seek(start)
            text = stream.read(max_bytes)
    except OSError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    lines = whole.splitlines()[1 if start else 0 :]
    return [line for line in map(_object, lines) if line]


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def document(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty where there is none, or none that can be read."""
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            return {}
        return decode(path.read_text(encoding="utf-8"), path.name)
    except (OSError, PayloadError, UnicodeDecodeError):
        return {}


def _history(folder: Path) -> list[dict[str, Any]]:
    for path in sorted(folder.glob("round-*.json"), reverse=True):
        found = document(path).get("history")
        if isinstance(found, list):
            return found
    return []


def _study(run_dir: Path) -> Study | None:
    try:
        return Study.model_validate(document(run_dir / "study.json"))
    except ValidationError:
        return None


def _results(path: Path) -> Results | None:
    try:
        return load_results(path)
    except PayloadError:
        return None


def _revoked(folder: Path) -> frozenset[str]:
    return frozenset(p.stem for p in folder.glob("*.json") if document(p).get("revoked"))


def read_files(run_dir: Path) -> RunFiles:
    """Read a run's folder, and of a server's directory around it who is no longer a member.

    Raises
    ------
    ConfigError
        If the folder is not there or holds nothing of a run.
    """
    if not any((run_dir / name).exists() for name in TRACES):
        raise ConfigError(
            f"The folder {run_dir.name} holds no run; name the folder that concors-sim or "
            "concors-server writes a study into."
        )
    in_server = run_dir.parent.name == "runs"
    histories = {stage: _history(run_dir / stage) for stage in STAGES}
    return RunFiles(
        study=_study(run_dir),
        steps=tail(run_dir / "progress.jsonl"),
        events=tail(run_dir / "audit.jsonl"),
        histories={stage: found for stage, found in histories.items() if found},
        results=_results(run_dir / "results.json"),
        wanted=document(run_dir / "run.json"),
        revoked=_revoked(run_dir.parent.parent / "hospitals") if in_server else frozenset(),
        has_report=(run_dir / "report.html").is_file(),
    )
