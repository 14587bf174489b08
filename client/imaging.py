"""One site's images, from a tree of files to its patients, read by one process or several."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from client.intake.frame import Frame
from client.intake.headers import read_header
from client.intake.nifti import index_nifti
from client.intake.parts import Overrides
from client.intake.segmentations import index_segmentations
from client.overrides import Overruled, told
from client.preprocess import Prepared
from client.pseudonyms import pseudonym
from client.quality import QualityLimits
from client.reading import Imaged, Job, Reading, read_patient
from client.site import Masks
from protocol.config import Preprocessing
from protocol.errors import DataError
from shared_models.labels import CLASS_NAMES

__all__ = ["read_dicom_site", "read_frames"]

Progress = Callable[[int, int], None]
CHUNK = 200
LIMITS = QualityLimits()


def _files(root: Path) -> list[str]:
    """All files below a folder in a fixed order; folders that are links are not entered."""
    found: list[str] = []
    for folder, inner, names in os.walk(root, followlinks=False):
        inner.sort()
        found.extend(os.path.join(folder, name) for name in sorted(names))
    return found


def _headers(paths: Sequence[str], bare: bool) -> tuple[list[Frame], Counter[str]]:
    frames: list[Frame] = []
    refused: Counter[str] = Counter()
    for path in paths:
        header = read_header(Path(path), bare=bare)
        if isinstance(header, str):
            refused[header] += 1
        else:
            frames.extend(header)
    return frames, refused


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield ``map``, in this process or over several that start clean (no inherited threads)."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def read_dicom_site(
    root: Path,
    secret: bytes,
    options: Preprocessing,
    *,
    masks: Masks | None = None,
    mask_root: Path | None = None,
    limits: QualityLimits = LIMITS,
    bare: bool = False,
    overruled: Overruled | None = None,
    sorter: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[list[Imaged], Counter[tuple[str, str]]]:
    """Read a tree of DICOM files, and masks if the site has them.

    Parameters
    ----------
    root, mask_root : Path
        Folders of the images and of the masks.
    limits : QualityLimits
        Beyond which a study or a mask is set aside.
    bare : bool
        Whether files without a DICOM preamble are read.
    overruled : mapping, optional
        What people decided about single series.
    sorter : Path, optional
        Weights of the network that decides where the rules of sorting are unsure.
    progress : callable, optional
        Called with (done, total) units of work; a file counts once for its header and once for its
        pixels.

    Returns
    -------
    list of Imaged
        Usable patients, sorted by key.
    Counter
        (kind, reason) to how many files, series, masks or patients were refused.

    Raises
    ------
    DataError
        If most masks follow another label convention than ``site.yaml`` states, or a decision
        names a series that is not there.
    """
    tell = progress or (lambda done, total: None)
    paths = _files(root)
    total, done = 2 * len(paths), 0
    refused: Counter[tuple[str, str]] = Counter()
    frames: list[Frame] = []
    with _mapper(workers) as each:
        chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
        for chunk, (found, bad) in zip(
            chunks, each(partial(_headers, bare=bare), chunks), strict=True
        ):
            frames += found
            refused.update({("file", reason): count for reason, count in bad.items()})
            done += len(chunk)
            tell(done, total)
        overrides = told(overruled or {}, secret, {frame.series_uid for frame in frames})
        jobs = [
            replace(job, overrides=_own(overrides, job), sorter=sorter)
            for job in _jobs(frames, secret, options, limits, masks, mask_root, refused)
        ]
        outcomes = []
        for outcome in each(read_patient, jobs):
            outcomes.append(outcome)
            done += outcome.num_files
            tell(min(done, total), total)
    tell(total, total)
    return _collect(outcomes, refused)


def _jobs(
    frames: Iterable[Frame],
    secret: bytes,
    options: Preprocessing,
    limits: QualityLimits,
    masks: Masks | None,
    mask_root: Path | None,
    refused: Counter[tuple[str, str]],
) -> list[Job]:
    by_patient: dict[str, dict[str, list[Frame]]] = {}
    for frame in frames:
        by_patient.setdefault(frame.patient_id, {}).setdefault(frame.study_uid, []).append(frame)
    mask_paths: dict[str, list[Path]] = {}
    if masks is not None and mask_root is not None:
        index = index_segmentations if masks.format == "dicom_seg" else index_nifti
        mask_paths, others = index(mask_root)
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
        )
        for patient, studies in sorted(by_patient.items())
    ]


def _own(overrides: Overrides, job: Job) -> Overrides:
    """Return the decisions about one patient's series."""
    if not overrides:
        return {}
    mine = {frame.series_uid for study in job.studies for frame in study}
    return {key: override for key, override in overrides.items() if key[0] in mine}


def read_frames(
    root: Path, *, bare: bool = False, workers: int = 1, progress: Progress | None = None
) -> tuple[list[Frame], Counter[str]]:
    """Read the frames of all files below a folder, without their pixels; and count the refused."""
    tell = progress or (lambda done, total: None)
    paths = _files(root)
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    frames: list[Frame] = []
    refused: Counter[str] = Counter()
    with _mapper(workers) as each:
        for index, (found, bad) in enumerate(each(partial(_headers, bare=bare), chunks), start=1):
            frames += found
            refused.update(bad)
            tell(min(index * CHUNK, len(paths)), len(paths))
    return frames, refused


def _collect(
    outcomes: Sequence[Reading], refused: Counter[tuple[str, str]]
) -> tuple[list[Imaged], Counter[tuple[str, str]]]:
    for outcome in outcomes:
        refused.update(outcome.refused)
    _refuse_wrong_convention(outcomes)
    patients = []
    for outcome in outcomes:
        if outcome.imaged is None:
            continue
        if outcome.convention is not None:
            refused[("mask", "mask with its labels exchanged, unlike the site's others")] += 1
            prepared = outcome.imaged.prepared
            bare = Prepared(
                prepared.cine, None, prepared.lge, prepared.lge_present, prepared.spacing_mm
            )
            imaged = outcome.imaged
            patients.append(replace(imaged, prepared=bare))
        else:
            patients.append(outcome.imaged)
    return sorted(patients, key=lambda imaged: imaged.key), +refused


def _refuse_wrong_convention(outcomes: Sequence[Reading]) -> None:
    labelled = [
        o for o in outcomes if o.imaged is not None and o.imaged.prepared.labels is not None
    ]
    wrong = [o.convention for o in labelled if o.convention is not None]
    if not wrong or len(wrong) * 2 <= len(labelled):
        return
    swap = wrong[0]
    meant = ", ".join(f"{CLASS_NAMES[a]} is {CLASS_NAMES[b]}" for a, b in sorted(swap.items()))
    raise DataError(
        f"the masks contradict masks.labels in site.yaml: by their anatomy what is called {meant}; "
        "correct masks.labels."
    )
