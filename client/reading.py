"""One patient's files, from frames to what a network sees, or why not.

What comes out of here holds no number, name, date or path of a patient: a keyed hash, arrays on the
common grid, and the scanner's class.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from client.intake.decoder import Decoder
from client.intake.frame import Frame
from client.intake.images import decode
from client.intake.nifti import read_nifti
from client.intake.parts import Overrides, Part, sort_parts
from client.intake.segmentations import read_segmentations
from client.intake.sorting import Sorted, choose
from client.intake.stacks import StackPlan, plan_stack
from client.mask_quality import mask_problems
from client.masks import Labelled, likely_convention
from client.preprocess import Prepared, Stack, find_lv_centre, prepare, systole
from client.quality import Quality, QualityLimits, examine_cine, problems
from client.site import Masks
from protocol.config import Preprocessing
from protocol.errors import DataError

__all__ = ["Imaged", "Job", "Reading", "read_patient"]


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


def read_patient(job: Job) -> Reading:
    refused: Counter[tuple[str, str]] = Counter()
    num_files = len({f.pixels.path for study in job.studies for f in study})
    chosen: Sorted | None = None
    for study in job.studies:
        found = choose(_parts(study, job))
        refused.update({("series", reason): count for reason, count in found.refused.items()})
        if found.cine and chosen is not None:
            refused[("series", "another study of the same patient is used")] += 1
        if found.cine and (chosen is None or len(found.cine) > len(chosen.cine)):
            chosen = found
    if chosen is None:
        refused[("patient", "no short-axis cine")] += 1
        return Reading(None, refused, num_files)
    try:
        with Decoder() as decoder:
            plan = plan_stack(chosen.cine)
            cine = Stack(decode(plan, decoder), plan.affine, plan.spacing_mm)
            quality = examine_cine(cine)
            beyond = problems(quality, job.limits)
            if beyond:
                raise DataError(f"set aside: {' and '.join(beyond)}")
            lge = _late_enhancement(chosen, decoder, refused)
        labelled, convention = _masks(job, plan, cine, refused)
        prepared = prepare(
            cine,
            job.options,
            labels=None if labelled is None else labelled.labels,
            phases=None if labelled is None else labelled.phases,
            lge=lge,
        )
    except DataError as error:
        refused[("patient", error.sentence)] += 1
        return Reading(None, refused, num_files)
    first = chosen.cine[0]
    imaged = Imaged(job.key, first.vendor, first.field_strength_t, prepared, quality)
    return Reading(imaged, refused, num_files, convention)


def _parts(study: tuple[Frame, ...], job: Job) -> list[Part]:
    parts = sort_parts(study, job.overrides)
    if job.sorter is None:
        return parts
    # Imported here: a hospital without the network does not wait for torch.
    from client.sorter import decide

    with Decoder() as decoder:
        return decide(parts, job.sorter, decoder)


def _late_enhancement(
    found: Sorted, decoder: Decoder, refused: Counter[tuple[str, str]]
) -> Stack | None:
    if not found.lge:
        return None
    try:
        plan = plan_stack(found.lge)
        return Stack(decode(plan, decoder), plan.affine, plan.spacing_mm)
    except DataError as error:
        refused[("series", f"late enhancement: {error.sentence}")] += 1
        return None


def _masks(
    job: Job, plan: StackPlan, cine: Stack, refused: Counter[tuple[str, str]]
) -> tuple[Labelled | None, dict[int, int] | None]:
    if job.masks is None or not job.mask_paths:
        return None, None
    try:
        if job.masks.format == "dicom_seg":
            labelled = read_segmentations(job.mask_paths, plan, job.masks.labels)
        else:
            centre = find_lv_centre(cine.pixels, cine.spacing_mm)
            phase = systole(cine.pixels, centre, cine.spacing_mm)
            labelled = read_nifti(job.mask_paths, plan, job.masks.labels, phase)
        convention = likely_convention(labelled.labels)
        # The rules speak of anatomy, so they wait until the labels' names are right.
        beyond = mask_problems(labelled.labels, job.limits.masks) if convention is None else []
        if beyond:
            raise DataError(f"set aside: {' and '.join(beyond)}")
        return labelled, convention
    except DataError as error:
        refused[("mask", error.sentence)] += 1
        return None, None
