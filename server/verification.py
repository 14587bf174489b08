"""Whether a run's record holds: log, record, every artefact, and the hospitals' own logs beside it.

Changing a byte of an artefact contradicts ``record.json``, changing that contradicts the log's
sealing line, and changing the log breaks its chain. Who writes the whole log anew is found by the
copies of the hospitals' logs (`server.counterparts`).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from protocol import audit
from protocol.arrays import fingerprint
from protocol.checks import Check, examined
from protocol.config import Study
from protocol.documents import decode, digest
from protocol.errors import DataError, PayloadError
from protocol.yaml_files import parse
from server.checkpoints import hash_file
from server.counterparts import compare_logs
from server.heads import REGRESSED
from server.model_card import CARD, front_matter
from server.recording import AUDIT_LOG
from server.sealing import RECORD, REPORT_WRITTEN, SEALED, artefacts

__all__ = ["verify_run"]

ADVICE = "it was changed since, so put the right one back from a copy."
Lines = Sequence[Mapping[str, Any]]


def verify_run(run_dir: Path, site_logs: Sequence[Path] = ()) -> Iterator[Check]:
    """Give what is found of each part of a run.

    Parameters
    ----------
    site_logs : sequence of Path
        Copies of hospitals' audit logs.
    """
    log = run_dir / AUDIT_LOG
    lines: list[dict[str, Any]] = []
    yield examined("audit log", lambda: _log(log, lines))
    yield examined("heads of the hospitals' logs", lambda: _heads(lines))
    sealed = _last(lines, SEALED)
    record: dict[str, Any] = {}
    yield examined(RECORD, lambda: _record(run_dir, lines, sealed, record))
    if record:
        yield from _artefacts(run_dir, record, lines)
        for stage in record["models"]:
            yield examined(f"network {stage}", partial(_network, run_dir, stage, record))
    elif sealed is None:
        for stage in sorted({line["detail"].get("stage", "") for line in lines} - {""}):
            yield examined(f"checkpoints of {stage}", partial(_newest, run_dir, stage, lines))
    for path in site_logs:
        yield examined(f"hospital's log {path.name}", partial(compare_logs, lines, path))


def _last(lines: Lines, event: str) -> Mapping[str, Any] | None:
    return next((line for line in reversed(lines) if line["event"] == event), None)


def _log(path: Path, lines: list[dict[str, Any]]) -> str:
    if not path.is_file():
        raise DataError("it is gone; put it back from a copy, as nothing else shows who was asked.")
    # What is whole before the first broken line is of use to the other checks.
    lines.extend(audit.read(path))
    if not lines:
        raise DataError("it is empty; put it back from a copy.")
    return f"{len(lines)} lines, newest {lines[-1]['hash']}"


def _heads(lines: Lines) -> str:
    broken = [line["detail"] for line in lines if line["event"] == REGRESSED]
    if broken:
        first = broken[0]
        raise DataError(
            f"the {first['which']} of {first['site']} {first['how']} during the run: "
            f"{first['noted'][0]} lines were noted and {first['told'][0]} told after that; ask its "
            "engineer who put an older copy back or began it anew."
        )
    told = {d["detail"]["site"] for d in lines if "heads" in d["detail"]}
    return f"those of {len(told)} hospitals only grew"


def _record(
    run_dir: Path,
    lines: Lines,
    sealed: Mapping[str, Any] | None,
    record: dict[str, Any],
) -> str:
    path = run_dir / RECORD
    if sealed is None:
        if path.exists() or (run_dir / "results.json").exists():
            raise DataError(
                "the log does not name it, although the run has results; the log's last lines were "
                "cut off or the run was stopped while it was sealed, so resume it once."
            )
        return "none yet, the run is not finished"
    if hash_file(path) != sealed["detail"].get("record"):
        raise DataError(f"it is not the one that the log names; {ADVICE}")
    found = decode(path.read_text(encoding="utf-8"), RECORD)
    at = sealed["index"]
    if found["audit"] != {"lines": at, "head": lines[at - 1]["hash"]}:
        raise DataError("it was sealed on another log than this one; put the right log back.")
    begun = _last(lines[:at], "run.begun")
    study = parse(Study, found["study"], RECORD)
    hashes = (digest(study.model_dump(mode="json", by_alias=True)), found["code"])
    if begun is None or hashes != (begun["detail"]["study_hash"], begun["detail"]["code"]):
        raise DataError("it names another study or code than the run began with.")
    if found["study_hash"] != hashes[0]:
        raise DataError("the hash of its study is another study's.")
    record.update(found)
    codes = len({line["detail"]["code"] for line in lines if line["event"] == "run.begun"})
    more = f"; the code changed on the way, {codes} versions of it ran" if codes > 1 else ""
    return f"study {study.name} by code {found['code'][:16]}, sealed in line {at + 1}{more}"


def _artefacts(run_dir: Path, record: Mapping[str, Any], lines: Lines) -> Iterator[Check]:
    named = dict(record["artefacts"])
    sealed, written = _last(lines, SEALED), _last(lines, REPORT_WRITTEN)
    if sealed and written and written["index"] > sealed["index"]:
        named["report.html"] = written["detail"]["report"]
    for name, wanted in named.items():
        yield examined(name, partial(_file, run_dir, name, wanted))
    study = parse(Study, record["study"], RECORD)
    here = {path.relative_to(run_dir).as_posix() for path in artefacts(run_dir, study)}
    strangers = sorted(here - named.keys())
    if strangers:
        yield Check(strangers[0], False, f"{RECORD} does not name it; it was added since.")


def _file(run_dir: Path, name: str, wanted: str) -> str:
    path = (run_dir / name).resolve()
    if not path.is_relative_to(run_dir.resolve()):
        raise DataError(f"{RECORD} names a file outside the run; it was not written by a run.")
    if not path.is_file():
        raise DataError("it is gone; put it back from a copy.")
    if hash_file(path) != wanted:
        raise DataError(f"it is not the one that {RECORD} names; {ADVICE}")
    return wanted


def _network(run_dir: Path, stage: str, record: Mapping[str, Any]) -> str:
    """Hold weights, manifest and card against each other: each names the others."""
    folder, wanted = run_dir / stage, record["models"][stage]
    weights = folder / "final.safetensors"
    if _model(weights) != wanted:
        raise DataError(f"its weights are others than the results name; {ADVICE}")
    manifest = decode((folder / "final.json").read_text(encoding="utf-8"), "final.json")
    card = front_matter((folder / CARD).read_text(encoding="utf-8"))["weights"]
    if (manifest["model"], manifest["sha256"]) != (wanted, hash_file(weights)):
        raise DataError("final.json is of other weights; put the right ones back.")
    if manifest.get("card") != hash_file(folder / CARD):
        raise DataError("final.json names another model card; put the right one back.")
    if (card["fingerprint"], card["sha256"]) != (wanted, manifest["sha256"]):
        raise DataError("its model card is of other weights; put the right one back.")
    return f"weights {wanted}, with manifest and card"


def _model(path: Path, prefix: str = "") -> str:
    try:
        named = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path.name} is no file of weights any more; {ADVICE}") from error
    part = {n.removeprefix(prefix): a for n, a in named.items() if n.startswith(prefix)}
    return fingerprint(part)


def _newest(run_dir: Path, stage: str, lines: Lines) -> str:
    """Check the checkpoints of a run that is not finished."""
    finished = {
        line["detail"]["round"]: line["detail"]["model"]
        for line in lines
        if line["event"] == "round.finished" and line["detail"].get("stage") == stage
    }
    paths = sorted((run_dir / stage).glob("round-*.json"))
    for path in paths:
        weights = path.with_suffix(".safetensors")
        try:
            manifest = decode(path.read_text(encoding="utf-8"), path.name)
        except (PayloadError, UnicodeDecodeError) as error:
            raise DataError(f"{path.name} cannot be read; {ADVICE}") from error
        if hash_file(weights) != manifest.get("sha256"):
            raise DataError(f"{weights.name} is not the one that {path.name} names; {ADVICE}")
        wanted = finished.get(manifest.get("round"))
        # The log is written before the checkpoint; a kill in between leaves a line more.
        if wanted is None or _model(weights, "model/") != wanted:
            raise DataError(f"{weights.name} is not the model that the log names; {ADVICE}")
    return f"{len(paths)} kept, as the log names them"
