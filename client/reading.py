"""One patient's files, from frames to what a network sees, or why not.

What comes out of here holds no number, name, date or path of a patient: a keyed hash, arrays on the
common grid, and the scanner's class.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from client.burned_text import text_characters
from client.intake.challenge_contours import read_contours
from client.intake.decoder import Decoder
from client.intake.frame import Frame
from client.intake.images import decode, decode_planes
from client.intake.nifti import read_nifti
from client.intake.parts import Overrides, Part, sort_parts
from client.intake.segmentations import read_segmentations
from client.intake.sorting import Sorted, choose
from client.intake.stacks import StackPlan, plan_stack
from client.intake.structures import read_structures
from client.mask_quality import mask_problems
from client.masks import Labelled, likely_convention
from client.placement import Stack, find_lv_centre, systole
from client.preprocess import Prepared, prepare
from client.quality import BURNED_TEXT, Quality, examine_cine, problems
from client.quality_limits import QualityLimits
from client.site_sections import Masks
from protocol.config import Preprocessing
from protocol.errors import DataError

__all__ = [
    "Imaged",
    "Job",
    "Reading",
    "Study",
    "judged",
    "measurable",
    "read_patient",
    "read_study",
]


@dataclass(frozen=True)
class Imaged:
    """One patient's images on the common grid, and the class of the scanner."""

    key: str
    vendor: str
    field_strength_t: float
    prepared: Prepared
    quality: Quality | None = None


@dataclass(frozen=True)
class Job:
    """What a worker needs to read one patient."""

    key: str
    studies: tuple[tuple[Frame, ...], ...]
    mask_paths: tuple[Path, ...]
    masks: Masks | None
    options: Preprocessing
    limits: QualityLimits
    overrides: Overrides = field(default_factory=dict)
    sorter: Path | None = None


@dataclass(frozen=True)
class Reading:
    """A patient, or why not; ``convention`` is the relabelling under which the mask is right."""

    imaged: Imaged | None
    refused: Counter[tuple[str, str]]
    num_files: int
    convention: dict[int, int] | None = field(default=None)


@dataclass(frozen=True)
class Study:
    """One patient's images and masks as acquired, before they go to the common grid.

    Attributes
    ----------
    drawn_on : ndarray or None
        (2, Z, Y, X): ED and ES as the expert saw them, where the cine shows others.
    """

    plan: StackPlan
    cine: Stack
    lge: Stack | None
    quality: Quality
    labelled: Labelled | None
    convention: dict[int, int] | None
    drawn_on: np.ndarray | None

    @property
    def phases(self) -> tuple[int, int] | None:
        """The expert's (ED, ES)."""
        return None if self.labelled is None else self.labelled.phases


def read_patient(job: Job) -> Reading:
    refused: Counter[tuple[str, str]] = Counter()
    num_files = len({f.pixels.path for study in job.studies for f in study})
    try:
        study = read_study(job, refused)
        prepared = prepare(
            study.cine,
            job.options,
            labels=None if study.labelled is None else study.labelled.labels,
            phases=study.phases,
            diastole=study.plan.diastole,
            lge=study.lge,
            drawn_on=study.drawn_on,
        )
        if study.labelled is not None:
            prepared = replace(prepared, partial=study.labelled.partial)
    except DataError as error:
        refused[("patient", error.sentence)] += 1
        return Reading(None, refused, num_files)
    first = study.plan.frames[0][0]
    imaged = Imaged(job.key, first.vendor, first.field_strength_t, prepared, study.quality)
    return Reading(imaged, refused, num_files, study.convention)


def read_study(job: Job, refused: Counter[tuple[str, str]]) -> Study:
    """Read the fullest study of a patient; count in ``refused`` what is left out or mended.

    Raises
    ------
    DataError
        Why there is none, or why it is set aside.
    """
    chosen = _fullest(job, refused)
    with Decoder() as decoder:
        plan = plan_stack(chosen.cine, job.limits.stack)
        cine = Stack(decode(plan, decoder), plan.affine, plan.spacing_mm)
        quality = measurable(cine, job.limits)
        refused.update({("stack", note): 1 for note in plan.notes})
        lge = _late_enhancement(chosen, decoder, job.limits, refused)
        labelled, convention = _masks(job, plan, cine, refused)
        drawn_on = _drawn_on(labelled, plan, cine, decoder)
    return Study(plan, cine, lge, quality, labelled, convention, drawn_on)


def _fullest(job: Job, refused: Counter[tuple[str, str]]) -> Sorted:
    chosen: Sorted | None = None
    for study in job.studies:
        found = choose(_parts(study, job))
        refused.update({("series", reason): count for reason, count in found.refused.items()})
        if found.cine and chosen is not None:
            refused[("series", "another study of the same patient is used")] += 1
        if found.cine and (chosen is None or len(found.cine) > len(chosen.cine)):
            chosen = found
    if chosen is None:
        raise DataError("no short-axis cine")
    return chosen


def _parts(study: tuple[Frame, ...], job: Job) -> list[Part]:
    parts = sort_parts(study, job.overrides)
    if job.sorter is None:
        return parts
    # Imported here: a hospital without the network does not wait for torch.
    from client.sorter import decide

    with Decoder() as decoder:
        return decide(parts, job.sorter, decoder)


def _late_enhancement(
    found: Sorted, decoder: Decoder, limits: QualityLimits, refused: Counter[tuple[str, str]]
) -> Stack | None:
    if not found.lge:
        return None
    try:
        plan = plan_stack(found.lge, limits.stack)
        pixels = decode(plan, decoder)
        if text_characters(pixels) > limits.max_text_characters:
            raise DataError(f"set aside: {BURNED_TEXT}")
        return Stack(pixels, plan.affine, plan.spacing_mm)
    except DataError as error:
        refused[("series", f"late enhancement: {error.sentence}")] += 1
        return None


def _drawn_on(
    labelled: Labelled | None, plan: StackPlan, cine: Stack, decoder: Decoder
) -> np.ndarray | None:
    """Return ED and ES as the expert saw them, (2, Z, Y, X), where the cine shows others."""
    if labelled is None or not labelled.drawn_on:
        return None
    pair = cine.pixels[list(labelled.phases)]
    for (p, a), frame in labelled.drawn_on.items():
        pair[p, plan.slices[a]] = decode_planes([frame], [plan.shift_px[a]], decoder)[0]
    return pair


def measurable(cine: Stack, limits: QualityLimits) -> Quality:
    """Return the figures of a cine.

    Raises
    ------
    DataError
        If it is beyond the site's limits; the sentence is the reason.
    """
    quality = examine_cine(cine)
    beyond = problems(quality, limits)
    if beyond:
        raise DataError(f"set aside: {' and '.join(beyond)}")
    return quality


def judged(labelled: Labelled, limits: QualityLimits) -> dict[int, int] | None:
    """Return the relabelling under which a mask is right; ``None`` if it is right already.

    Raises
    ------
    DataError
        If the mask cannot be a heart or is beyond the site's limits.
    """
    convention = None if labelled.partial else likely_convention(labelled.labels)
    if convention is None:
        # The rules speak of anatomy, so they wait until the labels' names are right.
        beyond = mask_problems(labelled.labels, limits.masks, partial=labelled.partial)
        if beyond:
            raise DataError(f"set aside: {' and '.join(beyond)}")
    return convention


def _masks(
    job: Job, plan: StackPlan, cine: Stack, refused: Counter[tuple[str, str]]
) -> tuple[Labelled | None, dict[int, int] | None]:
    if job.masks is None or not job.mask_paths:
        return None, None
    try:
        labelled = _read_masks(job.masks, job.mask_paths, plan, cine)
        refused.update(("mask", note) for note in labelled.notes)
        return labelled, judged(labelled, job.limits)
    except DataError as error:
        refused[("mask", error.sentence)] += 1
        return None, None


def _read_masks(masks: Masks, paths: tuple[Path, ...], plan: StackPlan, cine: Stack) -> Labelled:
    if masks.format == "dicom_seg":
        return read_segmentations(paths, plan, masks.labels)
    if masks.format == "rtstruct":
        return read_structures(paths, plan, masks.rois)
    if masks.format == "sunnybrook":
        return read_contours(paths, plan)
    centre = find_lv_centre(cine.pixels, cine.spacing_mm)
    phase = systole(cine.pixels, centre, cine.spacing_mm, plan.diastole)
    return read_nifti(paths, plan, masks.labels, phase)
