"""What a run would do, with which code, and what would travel: signed for the hospitals to read."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deployment.papers import make_manifest, read_manifest
from deployment.private_files import write_atomic
from protocol.arrays import Arrays, fingerprint, layout
from protocol.code import code_hash
from protocol.compression import Codec, encoded_size
from protocol.compression_config import Method
from protocol.config import Segmentation, Sorting, Study
from protocol.documents import decode, digest
from protocol.errors import PaperError
from protocol.survival_config import Prognosis
from server.consortium import Consortium

__all__ = ["MANIFEST_FILE", "Traffic", "traffic", "write_manifest"]

MANIFEST_FILE = "manifest.json"
MEGABYTE = 2**20


@dataclass(frozen=True)
class Traffic:
    """What the training of one stage sends.

    Attributes
    ----------
    weights : str or None
        Fingerprint of the weights that training begins from; None where the survey sets some.
    rounds : int
        Number of rounds.
    down_mb, up_mb : float
        To a hospital and from it in one round, MiB.
    """

    weights: str | None
    rounds: int
    down_mb: float
    up_mb: float


def traffic(study: Study) -> dict[str, Traffic]:
    """Return what each stage that trains a network sends, by stage."""
    # Building networks loads torch, which reading a study does not need.
    from server.initial import (
        begins_from_survey,
        prognosis_weights,
        segmentation_weights,
        sorting_weights,
    )

    weights = {
        "sort": sorting_weights,
        "segment": segmentation_weights,
        "prognosis": prognosis_weights,
    }
    sections: dict[str, Sorting | Segmentation | Prognosis] = {
        "sort": study.sort,
        "segment": study.segment,
        "prognosis": study.prognosis,
    }
    found: dict[str, Traffic] = {}
    for stage, section in sections.items():
        if stage not in study.stages:
            continue
        arrays = weights[stage](study)
        # Its control variate goes with the model; what comes back of it is one number.
        controls = 2 if section.strategy.name == "scaffold" else 1
        compression = study.rounds.compression
        down = _megabytes(arrays, compression.down, compression.fraction) * controls
        up = _megabytes(arrays, compression.up, compression.fraction)
        start = section.network.start
        if start is None and not (stage == "prognosis" and begins_from_survey(study)):
            start = fingerprint(arrays)
        found[stage] = Traffic(start, section.rounds, down, up)
    return found


def _megabytes(arrays: Arrays, method: Method, fraction: float) -> float:
    """Return how much a model takes on the way, once the other end has the first one."""
    codec = Codec.of(method, fraction)
    if codec is None:
        return sum(array.nbytes for array in arrays.values()) / MEGABYTE
    return encoded_size(layout(arrays), codec) / MEGABYTE


def write_manifest(
    consortium: Consortium, run_dir: Path, study: Study, *, now: datetime, lifetime: timedelta
) -> Path:
    """Write the manifest of a run, unless the one that is there still says the same.

    Returns
    -------
    Path
        The manifest.
    """
    path, key = run_dir / MANIFEST_FILE, consortium.run_key()
    document = study.model_dump(mode="json", by_alias=True)
    coordinator = key.public_key().public_bytes_raw().hex()
    if path.is_file() and _still_says(path, document, coordinator, now):
        return path
    stages = {
        stage: {
            "weights": each.weights,
            "rounds": each.rounds,
            "down_mb": round(each.down_mb, 3),
            "up_mb": round(each.up_mb, 3),
        }
        for stage, each in traffic(study).items()
    }
    text = make_manifest(
        key,
        consortium=consortium.settings.name,
        study=document,
        code_hash=code_hash(),
        version=version("concors"),
        stages=stages,
        serial=_next_serial(consortium, now),
        now=now,
        expires=now + lifetime,
    )
    return write_atomic(path, text.encode())


def _still_says(path: Path, study: dict[str, Any], coordinator: str, now: datetime) -> bool:
    try:
        manifest = read_manifest(path.read_text(), coordinator_key=coordinator, now=now)
    except PaperError:
        return False
    return manifest["study_hash"] == digest(study) and manifest["code_hash"] == code_hash()


def _next_serial(consortium: Consortium, now: datetime) -> int:
    """Return more than every serial before, also where folders of old runs were deleted."""
    serials = [int(now.timestamp())]
    for path in consortium.runs.glob(f"*/{MANIFEST_FILE}"):
        serials.append(int(decode(path.read_text(), path.name)["serial"]) + 1)
    return max(serials)
