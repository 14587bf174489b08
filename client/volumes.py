"""Studies that are volumes already: NIfTI files and numpy archives instead of DICOM.

How they are named and what they hold: `client.nifti_images` and `client.numpy_images`.

Axes: T phases, Z slices base to apex, Y rows, X columns.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.burned_text import text_characters
from client.duplicates import without_copies
from client.intake.nifti import index_nifti, read_nifti
from client.masks import Labelled
from client.nifti_images import index_nifti_images, read_nifti_study
from client.numpy_images import index_archives, read_archive
from client.placement import Stack, find_lv_centre, systole
from client.preprocess import Prepared, prepare
from client.pseudonyms import pseudonym
from client.quality import BURNED_TEXT, Quality
from client.quality_limits import QualityLimits
from client.reading import Imaged, judged, measurable
from client.site_sections import Masks
from client.volume_study import Refused, VolumeStudy
from protocol.config import Preprocessing
from protocol.errors import DataError

__all__ = ["read_volume_site"]


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
        Files of which module above.

    Returns
    -------
    list of Imaged, Counter
        As `client.imaging.read_dicom_site`.
    """
    refused: Refused = Counter()
    files = index_nifti_images(root, refused) if form == "nifti" else index_archives(root, refused)
    mask_paths: dict[str, list[Path]] = {}
    if masks is not None and mask_root is not None:
        mask_paths, others = index_nifti(mask_root)
        refused[("mask", "file is not a mask")] += others
        refused[("mask", "mask of a patient without images")] += len(set(mask_paths) - set(files))
    patients = []
    for done, (patient, paths) in enumerate(sorted(files.items()), start=1):
        try:
            study = (read_nifti_study if form == "nifti" else read_archive)(paths, limits, refused)
            quality = _quality(study.cine, limits)
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


def _quality(cine: Stack, limits: QualityLimits) -> Quality | None:
    # Of ED and ES alone the motion cannot be judged; text can.
    if len(cine.pixels) > 2:
        return measurable(cine, limits)
    if text_characters(cine.pixels) > limits.max_text_characters:
        raise DataError(f"set aside: {BURNED_TEXT}")
    return None


def _imaged(key: str, study: VolumeStudy, prepared: Prepared, quality: Quality | None) -> Imaged:
    return Imaged(key, study.vendor, study.field_strength_t, prepared, quality)


def _prepared(study: VolumeStudy, labelled: Labelled | None, options: Preprocessing) -> Prepared:
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
