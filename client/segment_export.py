"""Masks on the common grid, back on the images they belong to, as DICOM SEG files.

The way of `client.preprocess` in reverse: each class's membership is resampled linearly onto the
acquired pixels and the largest wins; then the inverse turn and shift, slice by slice, onto the
frame that each slice showed. Where preparation copied pixels (same spacing), they are copied back
and the mask is the same to the voxel.

Axes: Z slices base to apex, Y rows, X columns.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, TM

from client.gathering import patients_of
from client.imaging import read_frames
from client.intake.frame import Frame
from client.intake.headers import UNREADABLE
from client.intake.images import moved
from client.intake.opening import open_dicom
from client.intake.quiet import quietly
from client.intake.stacks import StackPlan
from client.overrides import site_overrides
from client.placement import Placement, labels_back, place
from client.preprocess import prepare
from client.pseudonyms import load_secret
from client.reading import Job, read_study
from client.segmentation_files import ALGORITHM, encode_segmentation
from client.site import SiteConfig, inside, load_site, site_sorter
from protocol.config import Preprocessing
from protocol.errors import ConfigError, DataError
from shared_models.labels import CLASS_NAMES, LV, MYO, RV

__all__ = ["Exported", "Segment", "export_masks", "planes_back", "segmentations"]

PHASES = ("ed", "es")
DATED = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
COPIED = (*DATED, "AccessionNumber", "PatientID", "PatientName", "PatientSex", "StudyID",
          "ReferringPhysicianName")  # fmt: skip
#: From a cine (2, Z, Y, X) on the common grid to labels uint8 of the same shape.
Segment = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Exported:
    """How many patients and files were written, and what was not, by (kind, reason)."""

    patients: int
    files: int
    refused: Counter[tuple[str, str]]


def planes_back(
    labels: np.ndarray,
    plan: StackPlan,
    drawn_on: Mapping[tuple[int, int], Frame],
    at: Placement,
) -> tuple[list[tuple[Frame, np.ndarray]], ...]:
    """Return, for ED and for ES, each acquired slice's frame and its labels (Y, X) as acquired.

    Parameters
    ----------
    labels : ndarray
        uint8 (2, Z, size, size), canonical, on the common grid.
    drawn_on : mapping
        As of `client.masks.Labelled`.
    """
    back = labels_back(labels, at)
    return tuple(
        [
            (
                drawn_on.get((p, a), plan.frames[t][a]),
                moved(back[p, z], -plan.shift_px[a], outside=0),
            )
            for a, z in enumerate(plan.slices)
        ]
        for p, t in enumerate(at.phases)
    )


def segmentations(
    planes: list[tuple[Frame, np.ndarray]],
    order: tuple[int, ...],
    phase: str,
    algorithm: hd.AlgorithmIdentificationSequence | None,
) -> Iterator[Dataset]:
    """Yield the SEG objects of one phase: one, or one for each multi-frame image.

    Raises
    ------
    DataError
        If an image cannot be read again, or lacks what a SEG must copy from it.
    """
    groups: dict[str, list[tuple[Frame, np.ndarray]]] = {}
    for frame, labels in planes:
        several = frame.pixels.num_frames > 1
        groups.setdefault(frame.pixels.path if several else "", []).append((frame, labels))
    for path, group in groups.items():
        labels = np.stack([plane for _, plane in group])
        if not labels.any():
            continue
        frames = [frame for frame, _ in group]
        images = [_header(Path(path))] if path else [_header(Path(f.pixels.path)) for f in frames]
        numbers = [frame.frame_index + 1 for frame in frames] if path else None
        try:
            with quietly():
                dataset = encode_segmentation(
                    images, numbers, labels, order, algorithm=algorithm, **_attributes(phase)
                )
        except UNREADABLE as error:
            raise DataError("the images lack what a segmentation must name of them") from error
        yield dataset


def _attributes(phase: str) -> dict[str, Any]:
    return {
        "series_instance_uid": generate_uid(),
        "series_number": 9000,
        "series_description": f"Concors {phase.upper()}",
        "sop_instance_uid": generate_uid(),
        "instance_number": PHASES.index(phase) + 1,
        "manufacturer": "Concors",
        "manufacturer_model_name": "Concors",
        "software_versions": "1",
        "device_serial_number": "0",
        "content_label": phase.upper(),
    }


def _header(path: Path) -> Dataset:
    try:
        with open_dicom(path, bare=True) as (stream, bare, _), quietly():
            return _mended(dcmread(stream, stop_before_pixels=True, force=bare))
    except UNREADABLE as error:
        raise DataError("an image cannot be read again") from error


def _mended(header: Dataset) -> Dataset:
    """Give a header what every SEG copies: empty where absent, as for dates of the year 0."""
    for keyword in COPIED:
        header.setdefault(keyword, "")
    for keyword, kind in DATED.items():
        try:
            kind(header[keyword].value or "")
        except ValueError:
            header[keyword].value = ""
    return header


def export_masks(
    site_dir: Path,
    options: Preprocessing,
    out: Path,
    segment: Segment | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write what a study sees of each patient's mask as DICOM SEG on the patient's images.

    Parameters
    ----------
    out : Path
        Folder for ``PSEUDONYM-ed.dcm`` and ``PSEUDONYM-es.dcm``. The files name the patient as the
        images do.
    segment : callable, optional
        A network to draw the masks; by default they are the expert's, and patients without are
        left out.

    Raises
    ------
    ConfigError
        If the site has no DICOM images.
    DataError
        If nothing could be written.
    """
    config = load_site(site_dir)
    if config.images is None or config.images.format != "dicom":
        raise ConfigError(
            f"{config.name} has no DICOM images for a mask to lie on; name some in site.yaml."
        )
    if segment is None and config.masks is None:
        raise ConfigError(
            f"{config.name} has no expert masks; give --weights to export a network's."
        )
    jobs, refused = _jobs(site_dir, config, options)
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    order = _order({} if config.masks is None else config.masks.labels)
    patients = files = 0
    for done, job in enumerate(jobs, start=1):
        try:
            written = _export(job, order, out, segment, refused)
        except DataError as error:
            refused[("patient", error.sentence)] += 1
            written = 0
        patients, files = patients + bool(written), files + written
        if progress is not None:
            progress(done, len(jobs))
    if not files:
        raise DataError(
            f"{config.name} has no mask that can be exported; see concors-client check."
        )
    return Exported(patients, files, +refused)


def _jobs(
    site_dir: Path, config: SiteConfig, options: Preprocessing
) -> tuple[list[Job], Counter[tuple[str, str]]]:
    refused: Counter[tuple[str, str]] = Counter()
    if config.images is None:
        return [], refused
    images, masks = config.images, config.masks
    root = inside(site_dir, images.path, "images.path")
    frames, bad = read_frames(
        root,
        bare=images.without_preamble,
        max_files=images.max_files,
        max_study_images=images.max_study_images,
        workers=config.workers,
    )
    refused.update({("file", reason): count for reason, count in bad.items()})
    jobs = patients_of(
        frames,
        load_secret(site_dir, config.secret),
        options,
        refused,
        limits=config.quality,
        masks=masks,
        mask_root=None if masks is None else inside(site_dir, masks.path, "masks.path"),
        overruled=site_overrides(site_dir, images),
        sorter=site_sorter(site_dir, images),
        max_study_images=images.max_study_images,
    )
    return jobs, refused


def _order(convention: Mapping[int, str]) -> tuple[int, ...]:
    """Return the classes of segments 1, 2, 3: as the hospital numbers them, if it does."""
    if sorted(convention) == [1, 2, 3]:
        label = {name: number for number, name in CLASS_NAMES.items()}
        return tuple(label[convention[number]] for number in (1, 2, 3))
    return LV, MYO, RV


def _export(
    job: Job,
    order: tuple[int, ...],
    out: Path,
    segment: Segment | None,
    refused: Counter[tuple[str, str]],
) -> int:
    """Write one patient's files; return how many."""
    if segment is None and not job.mask_paths:
        return 0
    study = read_study(job, refused)
    if segment is None and (study.labelled is None or study.convention is not None):
        return 0
    phases, diastole = study.phases, study.plan.diastole
    at = place(study.cine, job.options, phases=phases, diastole=diastole)
    prepared = prepare(
        study.cine,
        job.options,
        labels=None if study.labelled is None else study.labelled.labels,
        phases=phases,
        diastole=diastole,
        drawn_on=study.drawn_on,
    )
    found = prepared.labels if segment is None else segment(prepared.cine)
    if found is None:
        return 0
    written = 0
    algorithm = None if segment is None else ALGORITHM
    drawn_on = {} if study.labelled is None else study.labelled.drawn_on
    for phase, planes in zip(PHASES, planes_back(found, study.plan, drawn_on, at), strict=True):
        for count, dataset in enumerate(segmentations(planes, order, phase, algorithm)):
            path = out / f"{job.key}-{phase}{f'-{count + 1}' if count else ''}.dcm"
            with quietly():
                dcmwrite(path, dataset, enforce_file_format=True)
            written += 1
    return written
