"""A hospital's sorted series as the sorting network's training records, kept on its disk.

Axes: N parts of series, Y rows, X columns, F numbers.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from client.cache import cache_key
from client.imaging import read_frames
from client.intake.decoder import Decoder
from client.intake.frame import Frame
from client.intake.parts import Part, sort_parts
from client.overrides import overrides_digest, site_overrides, told
from client.pseudonyms import load_secret, pseudonym
from client.series_features import part_features, part_picture
from client.site import inside, load_site
from protocol.errors import DataError
from protocol.series import SEQUENCES, VIEWS

__all__ = ["SeriesRecords", "series_records"]

RECORDS_VERSION = 1
KEY_DIGITS = 16


@dataclass(frozen=True)
class SeriesRecords:
    """Every part whose picture could be read.

    Attributes
    ----------
    patients : ndarray
        (N,) pseudonyms, 16 characters.
    images, features : ndarray
        float32 (N, 2, Y, X) and (N, F), see `client.series_features`.
    sequence, view : ndarray
        int64 (N,), the rules' words or a person's, as indices into the protocol's names.
    confidence : ndarray
        float64 (N,).
    """

    patients: np.ndarray
    images: np.ndarray
    features: np.ndarray
    sequence: np.ndarray
    view: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.patients)

    def where(self, chosen: np.ndarray) -> "SeriesRecords":
        """Return the records that a boolean mask (N,) chooses."""
        return SeriesRecords(*(getattr(self, name)[chosen] for name in self.__annotations__))

    @classmethod
    def joined(cls, parts: Sequence["SeriesRecords"]) -> "SeriesRecords":
        """Return the records of several hospitals in one."""
        names = cls.__annotations__
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def series_records(site_dir: Path) -> SeriesRecords | None:
    """Return the records of a hospital; ``None`` where it has no DICOM series.

    Read from its cache where files, settings and overrides are unchanged.

    Raises
    ------
    DataError
        If the overrides cannot be used.
    """
    config = load_site(site_dir)
    if config.members:
        found = [series_records((site_dir / member).resolve()) for member in config.members]
        parts = [records for records in found if records is not None]
        return SeriesRecords.joined(parts) if parts else None
    if config.images is None or config.images.format != "dicom":
        return None
    secret = load_secret(site_dir, config.secret)
    root = inside(site_dir, config.images.path, "images.path")
    overruled = site_overrides(site_dir, config.images)
    settings = {
        "records": RECORDS_VERSION,
        "images": config.images.model_dump(mode="json", exclude={"sorter"}),
        "overrides": overrides_digest(overruled),
        "secret": hashlib.sha256(b"cache" + secret).hexdigest(),
    }
    folder = site_dir / ".concors" / "sorting"
    path = folder / f"{cache_key([root], settings)}.safetensors"
    kept = _load(path)
    if kept is not None:
        return kept
    frames, _ = read_frames(root, bare=config.images.without_preamble, workers=config.workers)
    overrides = told(overruled, secret, {frame.series_uid for frame in frames})
    studies: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        studies.setdefault((frame.patient_id, frame.study_uid), []).append(frame)
    sorted_studies = [
        (pseudonym(secret, patient), sort_parts(study, overrides))
        for (patient, _), study in sorted(studies.items())
    ]
    records = _records(sorted_studies)
    _save(path, records)
    return records


def _records(studies: Sequence[tuple[str, list[Part]]]) -> SeriesRecords:
    rows: list[tuple] = []
    with Decoder() as decoder:
        for key, parts in sorted(studies, key=lambda study: study[0]):
            for part in parts:
                picture = None if part.ignored else part_picture(part, decoder)
                if picture is None:
                    continue
                labels = SEQUENCES.index(part.sequence), VIEWS.index(part.view)
                rows.append((key, picture, part_features(part, parts), *labels, part.confidence))
    if not rows:
        raise DataError(
            "none of the series has pixels that can be read; run concors-client check to see why."
        )
    columns = list(zip(*rows, strict=True))
    return SeriesRecords(
        np.array(columns[0]),
        np.stack(columns[1]),
        np.stack(columns[2]),
        np.array(columns[3], np.int64),
        np.array(columns[4], np.int64),
        np.array(columns[5], np.float64),
    )


def _save(path: Path, records: SeriesRecords) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    arrays = {name: getattr(records, name) for name in SeriesRecords.__annotations__}
    # The format knows no text: sixteen bytes a pseudonym.
    arrays["patients"] = np.frombuffer(
        "".join(records.patients.tolist()).encode("ascii"), np.uint8
    ).reshape(-1, KEY_DIGITS)
    draft = path.with_name(f".{path.stem}.{os.getpid()}")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, draft)
    draft.chmod(0o600)
    draft.replace(path)
    for other in path.parent.glob("*.safetensors"):
        if other != path:
            other.unlink(missing_ok=True)


def _load(path: Path) -> SeriesRecords | None:
    if not path.is_file():
        return None
    try:
        arrays = load_file(path)
        text = arrays["patients"].tobytes().decode("ascii")
        keys = [text[i : i + KEY_DIGITS] for i in range(0, len(text), KEY_DIGITS)]
        return SeriesRecords(**{**arrays, "patients": np.array(keys)})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
