"""A NIfTI file as an array, its size checked before anything is unfolded or allocated."""

import gzip
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from client.intake.headers import UNREADABLE
from protocol.errors import DataError

__all__ = ["MAX_VOXELS", "open_nifti"]

# 60 phases of 40 slices of 512 x 512.
MAX_VOXELS = 60 * 40 * 512 * 512
MAX_FILE_BYTES = 1 << 30
# Masks shrink a hundredfold and more; a file of zeros shrinks a thousandfold.
MAX_UNFOLDING, ALWAYS_BYTES = 200, 64 << 20
MAX_HEADER_BYTES = 1 << 20
HEAD_BYTES = 540
# NIfTI-1 and NIfTI-2: where the dimensions, bits a voxel and the first voxel's place stand.
LAYOUTS = {348: ("8h", 40, 72, "f", 108), 540: ("8q", 16, 14, "q", 168)}


def open_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels (I, J, K) or (I, J, K, T), scaled, float32, and the affine to RAS mm.

    Raises
    ------
    DataError
        If the file is damaged, a link, or larger than bounds; in words that name no file.
    """
    try:
        _check_size(path)
        image = nibabel.load(path)
        values = np.asarray(image.dataobj, dtype=np.float32)
        affine = np.asarray(image.affine, dtype=float)
    except (*UNREADABLE, ImageFileError, zlib.error) as error:
        raise DataError("NIfTI file is damaged") from error
    if not np.isfinite(values).all():
        raise DataError("NIfTI file with values that are not finite numbers")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not ((steps > 0.1) & (steps < 100)).all():
        raise DataError("NIfTI file with an impossible voxel size")
    cosines = (affine[:3, :3] / steps).T @ (affine[:3, :3] / steps)
    if np.abs(cosines - np.eye(3)).max() > 0.01:
        raise DataError("NIfTI file with axes that are not at right angles")
    # Some writers leave trailing axes of one.
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return values, affine


def _check_size(path: Path) -> None:
    if path.is_symlink():
        raise DataError("NIfTI file is a symbolic link")
    stored = path.stat().st_size
    if stored > MAX_FILE_BYTES:
        raise DataError("NIfTI file is larger than 1 GiB")
    with path.open("rb") as stream:
        folded = stream.read(2) == b"\x1f\x8b"
    with gzip.open(path) if folded else path.open("rb") as content:
        head = content.read(HEAD_BYTES)
    voxels, size, first = _stated(head)
    if voxels > MAX_VOXELS or first > MAX_HEADER_BYTES:
        raise DataError("NIfTI file states an implausible size")
    if not folded and size + first > stored:
        raise DataError("NIfTI file is damaged")
    if folded and size > max(ALWAYS_BYTES, MAX_UNFOLDING * stored):
        raise DataError("NIfTI file unfolds to an implausible size")


def _stated(head: bytes) -> tuple[int, int, float]:
    """Return the number of voxels, their bytes, and where the first one stands."""
    for order in "<>":
        layout = LAYOUTS.get(struct.unpack_from(f"{order}i", head)[0])
        if layout is None:
            continue
        dims_format, dims_at, bits_at, first_format, first_at = layout
        dims = struct.unpack_from(order + dims_format, head, dims_at)
        (bits,) = struct.unpack_from(f"{order}h", head, bits_at)
        (first,) = struct.unpack_from(order + first_format, head, first_at)
        if not 3 <= dims[0] <= 7 or not 1 <= bits <= 256 or not first >= 0:
            raise DataError("NIfTI file is damaged")
        voxels = 1
        for size in dims[1 : dims[0] + 1]:
            if size < 1:
                raise DataError("NIfTI file is damaged")
            voxels *= size
        return voxels, voxels * bits // 8, first
    raise DataError("not a NIfTI file")
