"""Studies that are volumes already: NIfTI files and numpy archives instead of DICOM.

NIfTI, either way of naming:

- as BIDS has it, ``sub-NUMBER/[ses-X/]cine/*.nii.gz`` and ``sub-NUMBER/[ses-X/]anat/*.nii.gz``; a
  ``.json`` beside a file may state Manufacturer and MagneticFieldStrength;
- flat, ``NUMBER_cine.nii.gz`` (or ``_4d``, ``_sax``) and ``NUMBER_lge.nii.gz``.

What has several phases is the cine; a single volume is late enhancement if its name says so (lge,
psir, de), and nothing otherwise.

A numpy archive is ``NUMBER.npz`` with ``cine`` (T, Z, Y, X) or ``ed`` and ``es`` (Z, Y, X) or
their ``_lut`` and ``_idx``, with ``spacing_mm`` (dz, dy, dx) or ``affine`` (column, row, slice to
LPS mm), and, if there are masks, ``ed_label`` and ``es_label`` (1 LV, 2 MYO, 3 RV).

Axes: T phases, Z slices base to apex, Y rows, X columns.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.archives import upright_affine
from client.burned_text import text_characters
from client.duplicates import without_copies
from client.intake.frame import vendor_of
from client.intake.nifti import RAS_TO_LPS, index_nifti, read_nifti
from client.intake.nifti_file import open_nifti
from client.intake.numpy_file import open_npz
from client.intake.stacks import BASE_TO_APEX
from client.masks import Labelled, map_labels
from client.preprocess import Prepared, Stack, find_lv_centre, prepare, systole
from client.pseudonyms import pseudonym
from client.quality import BURNED_TEXT, Quality, QualityLimits
from client.reading import Imaged, judged, measurable
from client.site import Masks
from protocol.config import Preprocessing
from protocol.errors import DataError
from shared_models.labels import CLASS_NAMES

__all__ = ["read_volume_site"]

Refused = Counter[tuple[str, str]]
BIDS = re.compile(r"sub-(?P<patient>[A-Za-z0-9]+)")
FLAT = re.compile(r"^(?P<patient>.+)_(?P<kind>[^_]+?)\.nii(?:\.gz)?$", re.IGNORECASE)
MASK = re.compile(r"_(?:gt|seg|mask|label|dseg)\.nii(?:\.gz)?$", re.IGNORECASE)
LATE = re.compile(r"lge|psir|(?:^|[_-])de(?:[_.-]|$)|late", re.IGNORECASE)
MAX_JSON_BYTES = 1 << 20
CANONICAL = dict(CLASS_NAMES)
NPZ = ("cine", "ed", "es", "ed_lut", "ed_idx", "es_lut", "es_idx", "ed_label", "es_label",
       "spacing_mm", "affine")  # fmt: skip


@dataclass(frozen=True)
class _Study:
    """One patient's volumes; ``labels`` uint8 (2, Z, Y, X) of an archive of two phases."""

    cine: Stack
    lge: Stack | None = None
    labelled: Labelled | None = None
    vendor: str = "other"
    field_strength_t: float = float("nan")


@dataclass(frozen=True)
class _CineGrid:
    shape: tuple[int, int, int, int]
    affine: np.ndarray
    diastole: int = 0


def read_volume_site(
    root: Path,
    form: str,
    secret: bytes,
    options: Preprocessing,
    *,
    masks: Masks | None = None,
    mask_root: Path | None = None,
    limits: QualityLimits,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Imaged], Refused]:
    """Read a folder of NIfTI files or numpy archives through the same preparation as DICOM.

    Parameters
    ----------
    form : {"nifti", "numpy"}
        See above.

    Returns
    -------
    list of Imaged, Counter
        As `client.imaging.read_dicom_site`.
    """
    refused: Refused = Counter()
    files = _nifti_files(root, refused) if form == "nifti" else _archives(root, refused)
    mask_paths: dict[str, list[Path]] = {}
    if masks is not None and mask_root is not None:
        mask_paths, others = index_nifti(mask_root)
        refused[("mask", "file is not a mask")] += others
        refused[("mask", "mask of a patient without images")] += len(set(mask_paths) - set(files))
    patients = []
    for done, (patient, paths) in enumerate(sorted(files.items()), start=1):
        try:
            study = (_nifti_study if form == "nifti" else _npz_study)(paths, limits, refused)
            quality = measurable(study.cine, limits) if len(study.cine.pixels) > 2 else None
            labelled = study.labelled
            if masks is not None and patient in mask_paths:
                labelled = _labelled(mask_paths[patient], masks, study.cine, limits, refused)
            prepared = _prepared(study, labelled, options)
            key = pseudonym(secret, patient)
            patients.append(_imaged(key, study, prepared, quality))
        except DataError as error:
            refused[("patient", error.sentence)] += 1
        if progress is not None:
            progress(done, len(files))
    patients = without_copies(patients, refused)
    return sorted(patients, key=lambda imaged: imaged.key), +refused


def _imaged(key: str, study: _Study, prepared: Prepared, quality: Quality | None) -> Imaged:
    return Imaged(key, study.vendor, study.field_strength_t, prepared, quality)


def _prepared(study: _Study, labelled: Labelled | None, options: Preprocessing) -> Prepared:
    if labelled is None:
        return prepare(study.cine, options, lge=study.lge)
    prepared = prepare(
        study.cine, options, labels=labelled.labels, phases=labelled.phases, lge=study.lge
    )
    return replace(prepared, partial=labelled.partial)


def _labelled(
    paths: list[Path], masks: Masks, cine: Stack, limits: QualityLimits, refused: Refused
) -> Labelled | None:
    shape = cine.pixels.shape
    grid = _CineGrid((shape[0], shape[1], shape[2], shape[3]), cine.affine)
    centre = find_lv_centre(cine.pixels, cine.spacing_mm)
    try:
        labelled = read_nifti(
            paths, grid, masks.labels, systole(cine.pixels, centre, cine.spacing_mm)
        )
        if judged(labelled, limits) is not None:
            raise DataError("mask whose labels are exchanged; correct masks.labels in site.yaml")
    except DataError as error:
        refused[("mask", error.sentence)] += 1
        return None
    return labelled


def _nifti_files(root: Path, refused: Refused) -> dict[str, list[Path]]:
    by_patient: dict[str, list[Path]] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        if not re.search(r"\.nii(\.gz)?$", path.name, re.IGNORECASE):
            continue
        parts = [BIDS.fullmatch(part) for part in path.relative_to(root).parts[:-1]]
        subject = next((match["patient"] for match in parts if match), None)
        flat = FLAT.match(path.name)
        if MASK.search(path.name):
            refused[("file", "mask among the images")] += 1
        elif subject is not None:
            by_patient.setdefault(subject, []).append(path)
        elif flat:
            by_patient.setdefault(flat["patient"], []).append(path)
        else:
            refused[("file", "file that is not named NUMBER_what.nii.gz")] += 1
    return by_patient


def _nifti_study(paths: list[Path], limits: QualityLimits, refused: Refused) -> _Study:
    cines: list[tuple[Stack, Path]] = []
    lge: Stack | None = None
    for path in paths:
        try:
            stack = _stack(*open_nifti(path))
        except DataError as error:
            refused[("series", error.sentence)] += 1
            continue
        if len(stack.pixels) > 1:
            cines.append((stack, path))
        elif not LATE.search(path.name):
            refused[("series", "single volume that is not named late enhancement")] += 1
        elif text_characters(stack.pixels) > limits.max_text_characters:
            refused[("series", f"late enhancement: set aside: {BURNED_TEXT}")] += 1
        else:
            lge = stack
    if not cines:
        raise DataError("no short-axis cine")
    if len(cines) > 1:
        refused[("series", "another cine with fewer slices")] += len(cines) - 1
    cine, path = max(cines, key=lambda entry: entry[0].pixels.shape[1])
    return _Study(cine, lge, None, *_scanner(path))


def _stack(values: np.ndarray, affine_ras: np.ndarray) -> Stack:
    """Turn voxels (I, J, K[, T]) into a stack whose slices run from base to apex."""
    if values.ndim not in (3, 4):
        raise DataError("NIfTI file that is neither a volume nor a series of volumes")
    volume = values if values.ndim == 4 else values[..., None]
    affine = RAS_TO_LPS @ affine_ras
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    # Slices are thick: their axis is the third, unless another has plainly larger voxels.
    across = 2 if steps[2] * 1.5 >= steps.max() else int(steps.argmax())
    axes = [axis for axis in range(3) if axis != across] + [across]
    volume, affine = np.transpose(volume, (*axes, 3)), affine[:, [*axes, 3]]
    if affine[:3, 2] @ BASE_TO_APEX < 0:
        volume = volume[:, :, ::-1]
        affine = affine.copy()
        affine[:3, 3] += affine[:3, 2] * (volume.shape[2] - 1)
        affine[:3, 2] *= -1
    dx, dy, dz = np.linalg.norm(affine[:3, :3], axis=0)
    pixels = np.ascontiguousarray(np.transpose(volume, (3, 2, 1, 0)), dtype=np.float32)
    return Stack(pixels, affine, (float(dz), float(dy), float(dx)))


def _scanner(path: Path) -> tuple[str, float]:
    """Return (vendor, field strength) from a BIDS sidecar, of which nothing else is looked at."""
    sidecar = path.with_name(re.sub(r"\.nii(\.gz)?$", ".json", path.name, flags=re.IGNORECASE))
    try:
        if sidecar.is_symlink() or sidecar.stat().st_size > MAX_JSON_BYTES:
            return "other", float("nan")
        stated = json.loads(sidecar.read_text(encoding="utf-8"))
        field = float(stated.get("MagneticFieldStrength", "nan"))
        return vendor_of(str(stated.get("Manufacturer", ""))), field
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return "other", float("nan")


def _archives(root: Path, refused: Refused) -> dict[str, list[Path]]:
    by_patient: dict[str, list[Path]] = {}
    for path in sorted(p for p in root.rglob("*.npz") if p.is_file()):
        by_patient.setdefault(path.stem, []).append(path)
    for patient in [name for name, paths in by_patient.items() if len(paths) > 1]:
        refused[("patient", "two archives of one patient number; keep one")] += 1
        del by_patient[patient]
    return by_patient


def _npz_study(paths: list[Path], limits: QualityLimits, refused: Refused) -> _Study:
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
        labelled = _npz_labels(arrays, stack, limits, refused)
    return _Study(stack, None, labelled)


def _npz_labels(
    arrays: Mapping[str, np.ndarray], cine: Stack, limits: QualityLimits, refused: Refused
) -> Labelled | None:
    try:
        values = [arrays["ed_label"], arrays["es_label"]]
        if any(v.shape != cine.pixels.shape[1:] or v.dtype.kind not in "iu" for v in values):
            raise DataError("mask on another grid than its images")
        labelled = Labelled(map_labels(np.stack(values), CANONICAL), (0, 1))
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
