"""Prepared images on the hospital's disk, so that a second start reads tensors, not DICOM.

The name of a cache file is a hash of every input's relative path, size and modification time, of
the settings that shape the images, and of the version of intake. Sizes and times rather than
contents: hashing the contents would cost as much as reading them, every start; a copy that changes
the times only costs one more reading. Outcomes are not cached: the table is small, and read anew
each start.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from client.intake.frame import VENDORS
from client.preprocess import Prepared
from client.quality import Quality
from client.reading import Imaged

__all__ = ["INTAKE_VERSION", "cache_key", "load_images", "save_images"]

# Raise it whenever the same files would give other arrays.
INTAKE_VERSION = 3
KEEP = 4
RECORD = "record"
PARTS = ("cine", "labels", "lge", "lge_present")


class _Patient(BaseModel):
    """All that is kept of a patient beside the arrays; anything else is refused.

    Of a file's text nothing is kept: the manufacturer becomes one of five words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    vendor: Annotated[str, Field(pattern=rf"^({'|'.join(VENDORS)})$")]
    field_strength_t: float | None
    spacing_mm: tuple[float, float, float]
    quality: Quality | None
    partial: bool


class _Refused(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["file", "series", "patient", "mask"]
    reason: Annotated[str, Field(max_length=500, pattern=r"^[\x20-\x7e]+$")]
    count: int = Field(ge=1)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    intake_version: int
    patients: tuple[_Patient, ...]
    refused: tuple[_Refused, ...]


def cache_key(roots: Iterable[Path], settings: Mapping[str, object]) -> str:
    """Return the name of the cache of these folders under these settings, 32 hexadecimal digits."""
    digest = hashlib.sha256()
    digest.update(json.dumps([INTAKE_VERSION, settings], sort_keys=True).encode())
    for root in roots:
        digest.update(b"\0root\0")
        for folder, inner, names in os.walk(root, followlinks=False):
            inner.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                state = os.lstat(path)
                entry = [os.path.relpath(path, root), state.st_size, state.st_mtime_ns]
                digest.update(json.dumps(entry).encode())
    return digest.hexdigest()[:32]


def save_images(
    folder: Path, key: str, patients: Sequence[Imaged], refused: Counter[tuple[str, str]]
) -> None:
    """Write one cache file, whole or not at all, readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    arrays: dict[str, np.ndarray] = {}
    for patient in patients:
        prepared = patient.prepared
        arrays[f"{patient.key}/cine"] = np.ascontiguousarray(prepared.cine)
        arrays[f"{patient.key}/lge_present"] = prepared.lge_present.astype(np.uint8)
        if prepared.labels is not None:
            arrays[f"{patient.key}/labels"] = np.ascontiguousarray(prepared.labels)
        if prepared.lge is not None:
            arrays[f"{patient.key}/lge"] = np.ascontiguousarray(prepared.lge)
    record = _Record(
        intake_version=INTAKE_VERSION,
        patients=tuple(
            _Patient(
                key=p.key,
                vendor=p.vendor,
                field_strength_t=p.field_strength_t if np.isfinite(p.field_strength_t) else None,
                spacing_mm=p.prepared.spacing_mm,
                quality=p.quality,
                partial=p.prepared.partial,
            )
            for p in patients
        ),
        refused=tuple(
            _Refused(kind=kind, reason=reason, count=count)
            for (kind, reason), count in sorted(refused.items())
        ),
    )
    draft = folder / f".{key}.{os.getpid()}"
    save_file(arrays, draft, metadata={RECORD: record.model_dump_json()})
    draft.chmod(0o600)
    draft.replace(folder / f"{key}.safetensors")
    _prune(folder)


def _prune(folder: Path) -> None:
    """Keep the newest few: a hospital that adds a patient a day must not fill its disk."""
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    for old in files[:-KEEP]:
        old.unlink(missing_ok=True)


def load_images(folder: Path, key: str) -> tuple[list[Imaged], Counter[tuple[str, str]]] | None:
    """Read a cache file; ``None`` if there is none, or it is damaged (then it is made again)."""
    path = folder / f"{key}.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            record = _Record.model_validate_json(file.metadata()[RECORD])
            names = set(file.keys())
            if not names <= {f"{p.key}/{part}" for p in record.patients for part in PARTS}:
                return None
            patients = [_imaged(entry, file, names) for entry in record.patients]
    except (SafetensorError, ValidationError, KeyError, TypeError, OSError, ValueError):
        return None
    refused: Counter[tuple[str, str]] = Counter(
        {(entry.kind, entry.reason): entry.count for entry in record.refused}
    )
    return patients, refused


def _imaged(entry: _Patient, file: safe_open, names: set[str]) -> Imaged:
    def array(part: str) -> np.ndarray | None:
        name = f"{entry.key}/{part}"
        return file.get_tensor(name) if name in names else None

    cine, present = array("cine"), array("lge_present")
    if cine is None or present is None:
        raise KeyError(entry.key)
    prepared = Prepared(
        cine,
        array("labels"),
        array("lge"),
        present.astype(bool),
        entry.spacing_mm,
        entry.partial,
    )
    field = float("nan") if entry.field_strength_t is None else entry.field_strength_t
    return Imaged(entry.key, entry.vendor, field, prepared, entry.quality)
