"""What belongs to one patient, gathered: frames by study, mask files, decisions of people."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from client.duplicates import doubtful_patients
from client.intake.challenge_contours import index_contours
from client.intake.frame import Frame
from client.intake.nifti import index_nifti
from client.intake.parts import Overrides
from client.intake.segmentations import index_segmentations
from client.intake.structures import RTSTRUCT
from client.intake.walking import MAX_STUDY_IMAGES
from client.overrides import Overruled, told
from client.pseudonyms import pseudonym
from client.quality_limits import QualityLimits
from client.reading import Job
from client.site_sections import Masks
from protocol.config import Preprocessing

__all__ = ["patients_of"]

Studies = dict[str, list[Frame]]


def patients_of(
    frames: Sequence[Frame],
    secret: bytes,
    options: Preprocessing,
    refused: Counter[tuple[str, str]],
    *,
    limits: QualityLimits,
    masks: Masks | None = None,
    mask_root: Path | None = None,
    link: Mapping[str, str] | None = None,
    overruled: Overruled | None = None,
    sorter: Path | None = None,
    max_study_images: int = MAX_STUDY_IMAGES,
) -> list[Job]:
    """Return what is to be read of each patient, in the order of the patients' numbers.

    Parameters
    ----------
    frames : sequence of Frame
        Of all files of the site.
    refused : Counter
        (kind, reason) of what is not used is added here.
    limits, masks, mask_root, link, overruled, sorter, max_study_images
        As `client.imaging.read_dicom_site`.

    Raises
    ------
    DataError
        If a decision names a series that is not there.
    """
    overrides = told(overruled or {}, secret, {frame.series_uid for frame in frames})
    doubtful = doubtful_patients(frames)
    refused.update({("patient", reason): n for reason, n in Counter(doubtful.values()).items()})
    by_patient: dict[str, Studies] = {}
    for frame in frames:
        if frame.patient_id in doubtful:
            continue
        by_patient.setdefault(frame.patient_id, {}).setdefault(frame.study_uid, []).append(frame)
    _drop_too_large(by_patient, max_study_images, refused)
    mask_paths: dict[str, list[Path]] = {}
    if masks is not None and mask_root is not None:
        mask_paths, others = _index_masks(masks, mask_root, link)
        orphans = sum(patient not in by_patient for patient in mask_paths)
        refused[("mask", "file is not a mask")] += others
        refused[("mask", "mask of a patient without images")] += orphans
    return [
        Job(
            pseudonym(secret, patient),
            tuple(tuple(studies[uid]) for uid in sorted(studies)),
            tuple(mask_paths.get(patient, ())),
            masks,
            options,
            limits,
            _own(overrides, studies.values()),
            sorter,
        )
        for patient, studies in sorted(by_patient.items())
    ]


def _drop_too_large(
    by_patient: dict[str, Studies], limit: int, refused: Counter[tuple[str, str]]
) -> None:
    for patient, studies in list(by_patient.items()):
        large = [uid for uid, frames in studies.items() if len(frames) > limit]
        for uid in large:
            del studies[uid]
        if large:
            kind = "series" if studies else "patient"
            refused[(kind, f"study of more than {limit} images")] += len(large) if studies else 1
        if not studies:
            del by_patient[patient]


def _index_masks(
    masks: Masks, root: Path, link: Mapping[str, str] | None
) -> tuple[dict[str, list[Path]], int]:
    if masks.format == "dicom_seg":
        return index_segmentations(root)
    if masks.format == "rtstruct":
        return index_segmentations(root, (RTSTRUCT,))
    if masks.format == "sunnybrook":
        return index_contours(root, link)
    return index_nifti(root)


def _own(overrides: Overrides, studies: Iterable[Sequence[Frame]]) -> Overrides:
    """Return the decisions about one patient's series."""
    if not overrides:
        return {}
    mine = {frame.series_uid for study in studies for frame in study}
    return {key: override for key, override in overrides.items() if key[0] in mine}
