"""Prepared images on the hospital's disk, so that a second start reads tensors, not DICOM.

The name of a cache file is a hash of every input's relative path, size and modification time, of
the settings that shape the images, and of the version of intake. Sizes and times rather than
contents: hashing the contents would cost as much as reading them, every start; a copy that changes
the times only costs one more reading. Outcomes are not cached: the table is small, and read anew
each start.
"""

import hashlib
import json
import mmap
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
from client.intake.walking import MAX_FILES, files_below
from client.preprocess import Prepared
from client.quality import Quality
from client.reading import Imaged

__all__ = ["INTAKE_VERSION", "cache_key", "load_images", "save_images"]

# Raise it whenever the same files would give other arrays.
INTAKE_VERSION = 4
KEEP = 4
RECORD = "record"
DTYPES = {"F32": "<f4", "U8": "|u1"}
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
    kind: Literal["file", "series", "stack", "patient", "mask"]
    reason: Annotated[str, Field(max_length=500, pattern=r"^[\x20-\x7e]+$")]
    count: int = Field(ge=1)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    intake_version: int
    patients: tuple[_Patient, ...]
    refused: tuple[_Refused, ...]


def cache_key(
    roots: Iterable[Path], settings: Mapping[str, object], max_files: int = MAX_FILES
) -> str:
    """Return the name of the cache of these folders under these settings, 32 hexadecimal digits.

    Raises
    ------
    DataError
        If a folder holds more than ``max_files`` files.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([INTAKE_VERSION, settings], sort_keys=True).encode())
    for root in roots:
        digest.update(b"\0root\0")
        for path in files_below(root, max_files):
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
    """Open a cache file; ``None`` if there is none, or it is damaged (then it is made again).

    The arrays are views of the file, which the system reads when they are looked at and may forget
    again; who writes into one changes a copy of his own.
    """
    path = folder / f"{key}.safetensors"
    if not path.is_file():
        return None
    try:
        # safetensors checks the header: known kinds, no overlap, nothing beyond the end.
        with safe_open(path, framework="numpy") as file:
            record = _Record.model_validate_json(file.metadata()[RECORD])
        arrays = _views(path)
        if not set(arrays) <= {f"{p.key}/{part}" for p in record.patients for part in PARTS}:
            return None
        patients = [_imaged(entry, arrays) for entry in record.patients]
    except (SafetensorError, ValidationError, KeyError, TypeError, OSError, ValueError):
        return None
    refused: Counter[tuple[str, str]] = Counter(
        {(entry.kind, entry.reason): entry.count for entry in record.refused}
    )
    return patients, refused


def _views(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file as arrays on the mapped file."""
    with path.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    views = {}
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        dtype = np.dtype(DTYPES[entry["dtype"]])
        count = (high - low) // dtype.itemsize
        flat = np.frombuffer(content, dtype, count, start + low)
        views[name] = flat.reshape(entry["shape"])
    return views


def _imaged(entry: _Patient, arrays: Mapping[str, np.ndarray]) -> Imaged:
    cine, present = arrays[f"{entry.key}/cine"], arrays[f"{entry.key}/lge_present"]
    labels, lge = (arrays.get(f"{entry.key}/{part}") for part in ("labels", "lge"))
    prepared = Prepared(cine, labels, lge, present.astype(bool), entry.spacing_mm, entry.partial)
    field = float("nan") if entry.field_strength_t is None else entry.field_strength_t
    return Imaged(entry.key, entry.vendor, field, prepared, entry.quality)
