"""Research archives that hold arrays instead of DICOM: the public ACDC training set.

This form of ACDC keeps no spacing, only the voxel volume; the in-plane spacing follows from the
slice distance, which is 10 mm in most patients and 5 mm in some. The 10 mm reading is taken unless
it gives pixels above 2.0 mm, which no cardiac cine has. Volumes do not depend on the choice.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.intake.numpy_file import open_npz
from client.masks import map_labels
from client.placement import Stack
from client.preprocess import prepare
from client.pseudonyms import pseudonym
from client.reading import Imaged
from protocol.config import Preprocessing
from protocol.errors import DataError

__all__ = [
    "ACDC_LABELS",
    "AcdcStudy",
    "acdc_patients",
    "read_acdc",
    "read_acdc_site",
    "upright_affine",
]

ACDC_LABELS = {1: "RV", 2: "MYO", 3: "LV"}
MAX_PIXEL_MM = 2.0
SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MEMBERS = ("ed_lut", "ed_idx", "es_lut", "es_idx", "ed_label", "es_label")


@dataclass(frozen=True)
class AcdcStudy:
    """ED and ES of one patient: images (2, Z, Y, X), canonical labels (2, Z, Y, X)."""

    patient: str
    stack: Stack
    labels: np.ndarray


def acdc_patients(folder: Path, group: str | None) -> list[dict[str, str]]:
    """Return the rows of ``patients.csv``, of one diagnosis group or of all.

    Raises
    ------
    DataError
        If the folder holds no ``patients.csv`` or no patient of the group.
    """
    try:
        with (folder / "patients.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise DataError(
            "the ACDC folder holds no patients.csv; correct images.path in site.yaml."
        ) from error
    chosen = [row for row in rows if group is None or row["group"] == group]
    if not chosen:
        raise DataError("the ACDC folder holds no patient of this group; correct images.group.")
    return chosen


def read_acdc(folder: Path, rows: list[dict[str, str]]) -> Iterator[AcdcStudy]:
    """Read patients one by one.

    Raises
    ------
    DataError
        If a volume is missing or damaged.
    """
    for row in rows:
        try:
            # The table is a file like any other; a name in it must not lead elsewhere.
            if not SAFE_NAME.fullmatch(row["patient"]):
                raise ValueError
            file = open_npz(folder / "volumes" / f"{row['patient']}.npz", MEMBERS)
            pixels = np.stack([file["ed_lut"][file["ed_idx"]], file["es_lut"][file["es_idx"]]])
            values = np.stack([file["ed_label"], file["es_label"]])
        except (DataError, OSError, KeyError, ValueError, IndexError) as error:
            raise DataError(
                "a volume of the ACDC folder is missing or damaged; unpack the archive again."
            ) from error
        spacing = _spacing_mm(row)
        stack = Stack(pixels.astype(np.float32), upright_affine(spacing), spacing)
        yield AcdcStudy(row["patient"], stack, map_labels(values, ACDC_LABELS))


def _spacing_mm(row: dict[str, str]) -> tuple[float, float, float]:
    pixel_mm, dz_mm = float(row["inplane_if_10mm"]), 10.0
    if pixel_mm > MAX_PIXEL_MM:
        pixel_mm, dz_mm = float(row["inplane_if_5mm"]), 5.0
    # From the voxel volume rather than the table, so that volumes agree to all its digits.
    pixel_mm = float(np.sqrt(float(row["voxel_volume_mm3"]) / dz_mm))
    return dz_mm, pixel_mm, pixel_mm


def upright_affine(spacing: tuple[float, float, float]) -> np.ndarray:
    """A nominal short-axis affine: the archive's volumes already lie as `turn_upright` would turn.

    Columns run from the right to the left ventricle in all 80 patients, slices from base to apex.
    """
    dz, dy, dx = spacing
    left = np.array([0.71, 0.70, -0.03])
    down = np.array([-0.31, 0.27, -0.91])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = left * dx, down * dy
    affine[:3, 2] = -np.cross(left, down) * dz
    return affine


def read_acdc_site(
    root: Path,
    group: str | None,
    secret: bytes,
    options: Preprocessing,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Imaged], Counter[tuple[str, str]]]:
    """Read the ACDC archive, one diagnosis group or all, through the same preparation as DICOM.

    Raises
    ------
    DataError
        If the archive is incomplete.
    """
    rows = acdc_patients(root, group)
    patients = []
    for index, study in enumerate(read_acdc(root, rows), start=1):
        prepared = prepare(study.stack, options, labels=study.labels, phases=(0, 1))
        key = pseudonym(secret, study.patient)
        # Siemens at 1.5 or 3 T, but the archive does not say which patient was where.
        patients.append(Imaged(key, "siemens", float(np.nan), prepared))
        if progress is not None:
            progress(index, len(rows))
    return sorted(patients, key=lambda imaged: imaged.key), Counter()
