"""Studies as NIfTI files, either way of naming.

- As BIDS has it, ``sub-NUMBER/[ses-X/]cine/*.nii.gz`` and ``sub-NUMBER/[ses-X/]anat/*.nii.gz``; a
  ``.json`` beside a file may state Manufacturer and MagneticFieldStrength.
- Flat, ``NUMBER_cine.nii.gz`` (or ``_4d``, ``_sax``) and ``NUMBER_lge.nii.gz``.

What has several phases is the cine; a single volume is late enhancement if its name says so (lge,
psir, de), and nothing otherwise.
"""

import json
import re
from pathlib import Path

import numpy as np

from client.burned_text import text_characters
from client.intake.frame import vendor_of
from client.intake.nifti import RAS_TO_LPS
from client.intake.nifti_file import open_nifti
from client.intake.stacks import BASE_TO_APEX
from client.placement import Stack
from client.quality import BURNED_TEXT
from client.quality_limits import QualityLimits
from client.volume_study import Refused, VolumeStudy
from protocol.errors import DataError

__all__ = ["index_nifti_images", "read_nifti_study"]

BIDS = re.compile(r"sub-(?P<patient>[A-Za-z0-9]+)")
FLAT = re.compile(r"^(?P<patient>.+)_(?P<kind>[^_]+?)\.nii(?:\.gz)?$", re.IGNORECASE)
MASK = re.compile(r"_(?:gt|seg|mask|label|dseg)\.nii(?:\.gz)?$", re.IGNORECASE)
LATE = re.compile(r"lge|psir|(?:^|[_-])de(?:[_.-]|$)|late", re.IGNORECASE)
MAX_JSON_BYTES = 1 << 20


def index_nifti_images(root: Path, refused: Refused) -> dict[str, list[Path]]:
    """Return image files below a folder by patient number; others are counted in ``refused``."""
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


def read_nifti_study(paths: list[Path], limits: QualityLimits, refused: Refused) -> VolumeStudy:
    """Read one patient's NIfTI files: the cine with the most slices, and late enhancement.

    Raises
    ------
    DataError
        If none of them is a cine.
    """
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
    return VolumeStudy(cine, lge, None, *_scanner(path))


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
