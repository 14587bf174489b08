"""Studies as numpy archives, ``NUMBER.npz``.

An archive holds ``cine`` (T, Z, Y, X), or ``ed`` and ``es`` (Z, Y, X), or these two as ``_lut`` and
``_idx``; ``spacing_mm`` (dz, dy, dx) or ``affine`` (column, row, slice to LPS mm); and, if there
are masks, ``ed_label`` and ``es_label`` (1 LV, 2 MYO, 3 RV). Slices run from base to apex.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from client.archives import upright_affine
from client.intake.numpy_file import open_npz
from client.masks import Labelled, map_labels
from client.placement import Stack
from client.quality_limits import QualityLimits
from client.reading import judged
from client.volume_study import Refused, VolumeStudy
from protocol.errors import DataError
from shared_models.labels import CLASS_NAMES

__all__ = ["index_archives", "read_archive"]

NPZ = ("cine", "ed", "es", "ed_lut", "ed_idx", "es_lut", "es_idx", "ed_label", "es_label",
       "spacing_mm", "affine")  # fmt: skip


def index_archives(root: Path, refused: Refused) -> dict[str, list[Path]]:
    """Return the archives below a folder by patient number; doubles are counted in ``refused``."""
    by_patient: dict[str, list[Path]] = {}
    for path in sorted(p for p in root.rglob("*.npz") if p.is_file()):
        by_patient.setdefault(path.stem, []).append(path)
    for patient in [name for name, paths in by_patient.items() if len(paths) > 1]:
        refused[("patient", "two archives of one patient number; keep one")] += 1
        del by_patient[patient]
    return by_patient


def read_archive(paths: list[Path], limits: QualityLimits, refused: Refused) -> VolumeStudy:
    """Read one patient's archive, the only one of ``paths``.

    Raises
    ------
    DataError
        If it is damaged or lacks a cine or its geometry.
    """
    arrays = open_npz(paths[0], NPZ)
    for phase in ("ed", "es"):
        if f"{phase}_lut" in arrays and f"{phase}_idx" in arrays:
            lut, index = arrays[f"{phase}_lut"], arrays[f"{phase}_idx"]
            if index.dtype.kind not in "iu" or not index.size or int(index.max()) >= lut.size:
                raise DataError("numpy archive is damaged")
            arrays[phase] = lut.ravel()[index]
    if "cine" not in arrays and "ed" in arrays and "es" in arrays:
        if arrays["ed"].shape != arrays["es"].shape:
            raise DataError("numpy archive whose two phases differ in shape")
        arrays["cine"] = np.stack([arrays["ed"], arrays["es"]])
    cine = arrays.get("cine")
    if cine is None or cine.ndim != 4 or min(cine.shape) < 2:
        raise DataError("numpy archive without a cine of (phases, slices, rows, columns)")
    if not np.isfinite(cine).all():
        raise DataError("pixel values are not finite numbers")
    affine, spacing = _geometry(arrays)
    stack = Stack(cine.astype(np.float32), affine, spacing)
    labelled = None
    if len(cine) == 2 and "ed_label" in arrays and "es_label" in arrays:
        labelled = _labels(arrays, stack, limits, refused)
    return VolumeStudy(stack, None, labelled)


def _labels(
    arrays: Mapping[str, np.ndarray], cine: Stack, limits: QualityLimits, refused: Refused
) -> Labelled | None:
    try:
        values = [arrays["ed_label"], arrays["es_label"]]
        if any(v.shape != cine.pixels.shape[1:] or v.dtype.kind not in "iu" for v in values):
            raise DataError("mask on another grid than its images")
        labelled = Labelled(map_labels(np.stack(values), CLASS_NAMES), (0, 1))
        if judged(labelled, limits) is not None:
            raise DataError("mask whose labels are not 1 LV, 2 MYO, 3 RV")
    except DataError as error:
        refused[("mask", error.sentence)] += 1
        return None
    return labelled


def _geometry(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return affine and spacing; without an affine the volume is taken to be upright already."""
    affine = arrays.get("affine")
    if affine is not None and affine.shape == (4, 4) and np.isfinite(affine).all():
        dx, dy, dz = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
    elif arrays.get("spacing_mm") is not None and arrays["spacing_mm"].shape == (3,):
        dz, dy, dx = (float(step) for step in arrays["spacing_mm"])
        affine = upright_affine((dz, dy, dx))
    else:
        raise DataError("numpy archive without spacing_mm or affine")
    if not all(0.1 < step < 100 for step in (dz, dy, dx)):
        raise DataError("impossible pixel spacing")
    return np.asarray(affine, dtype=float), (float(dz), float(dy), float(dx))
