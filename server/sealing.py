"""What binds a finished run together: ``record.json``, and its hash as the last line of the log.

The record names the study, the code, the hospitals and the SHA-256 of every artefact; the log names
the record. So whoever changes a byte of weights, results, report, cards or log has to change the
log's last lines as well, and the hospitals hold their half of them (`server.verification`).
"""

import json
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deployment.sbom import write_sbom
from protocol import audit
from protocol.code import code_hash
from protocol.config import Study
from protocol.custody import Heads
from protocol.documents import decode
from protocol.secure_groups import role_in
from server.checkpoints import Checkpoints, hash_file
from server.model_card import CARD, card_values, render_card
from server.recording import AUDIT_LOG, study_hash
from server.results import Results

__all__ = ["RECORD", "REPORT_WRITTEN", "SBOM", "SEALED", "artefacts", "note_report", "seal_run"]

RECORD, SBOM = "record.json", "sbom.json"
SEALED, REPORT_WRITTEN = "run.sealed", "report.written"
# The signed paper of a consortium's run is there only where a server started it.
FILES = ("manifest.json", "results.json", "report.html", SBOM)
FOLDERS = ("start", "designs")
KEPT = frozenset({".json", ".jsonl", ".md", ".safetensors"})
PARTS = ("concors", "flwr", "numpy", "scipy", "torch", "safetensors", "cryptography", "opacus")


def artefacts(run_dir: Path, study: Study) -> Iterator[Path]:
    """Give the files of a run that its record names, sorted; never a hospital's."""
    for name in sorted([*FILES, *FOLDERS, *study.stages]):
        place = run_dir / name
        if place.is_file():
            yield place
        elif place.is_dir():
            found = (path for path in place.rglob("*") if path.suffix in KEPT and path.is_file())
            yield from sorted(p for p in found if p.name != "progress.jsonl")


def seal_run(run_dir: Path, study: Study, results: Results) -> Path:
    """Write the bill of materials, the cards and the record of a finished run, and seal its log.

    Raises
    ------
    DataError
        If the log was altered.
    """
    log = run_dir / AUDIT_LOG
    lines = list(audit.read(log))
    write_sbom(run_dir / SBOM)
    for stage in results.study.models:
        _write_card(run_dir, study, results, stage, lines)
    begun = [line["detail"] for line in lines if line["event"] == "run.begun"][-1]
    record = {
        "record": 1,
        "study": study.model_dump(mode="json", by_alias=True),
        "study_hash": study_hash(study),
        "code": code_hash(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PARTS}},
        "hospitals": [
            # Of the study: results may tell of hospitals together only.
            {"name": site, "role": role_in(study, site), "node": str(begun["hospitals"][site])}
            for site in study.hospitals.all
        ],
        "rounds": {stage: getattr(study, stage).rounds for stage in results.study.models},
        "models": results.study.models,
        "broken_logs": [broken.model_dump() for broken in results.broken_logs],
        "artefacts": {
            path.relative_to(run_dir).as_posix(): hash_file(path)
            for path in artefacts(run_dir, study)
        },
        "audit": {"lines": len(lines), "head": lines[-1]["hash"]},
    }
    path = run_dir / RECORD
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    audit.append(log, SEALED, {"record": hash_file(path)}, sync=True)
    return path


def note_report(run_dir: Path) -> None:
    """Note in the log that the report of a sealed run was written again from its results."""
    log = run_dir / AUDIT_LOG
    if (run_dir / RECORD).is_file() and log.is_file():
        audit.append(log, REPORT_WRITTEN, {"report": hash_file(run_dir / "report.html")})


def _write_card(
    run_dir: Path, study: Study, results: Results, stage: str, lines: list[dict[str, Any]]
) -> None:
    folder = run_dir / stage
    weights = folder / "final.safetensors"
    if not weights.is_file():
        return
    values = card_values(
        study,
        results,
        stage,
        {
            "file": f"{stage}/{weights.name}",
            "sha256": hash_file(weights),
            "fingerprint": results.study.models[stage],
        },
        code_hash(),
        {"study_releases": _spent(lines), "updates": _noise(folder)},
    )
    card = folder / CARD
    card.write_text(render_card(values), encoding="utf-8")
    Checkpoints(folder).name_card(hash_file(card))


def _spent(lines: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what the study cost each hospital's patients, as far as their ledgers told."""
    spent: dict[str, dict[str, float]] = {}
    for line in lines:
        if line["event"] == "received" and "heads" in line["detail"]:
            heads = Heads.from_dict(line["detail"]["heads"], "A line of the log")
            if heads.spent is not None:
                epsilon, delta = heads.spent
                spent[line["detail"]["site"]] = {"epsilon": epsilon, "delta": delta}
    return dict(sorted(spent.items()))


def _noise(folder: Path) -> dict[str, float]:
    """Return what the noise on the summed updates of a stage cost, from its last round."""
    manifests = sorted(folder.glob("round-*.json"))
    if not manifests:
        return {}
    text = manifests[-1].read_text(encoding="utf-8")
    history = decode(text, f"Manifest {manifests[-1].name}")["history"]
    together = history[-1].get("together", {}) if history else {}
    return {key: together[key] for key in ("epsilon", "delta") if "epsilon" in together}
