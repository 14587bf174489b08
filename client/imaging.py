"""One site's images, from a tree of files to its patients, read by one process or several."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from client.duplicates import without_copies
from client.gathering import patients_of
from client.intake.frame import Frame
from client.intake.headers import read_header
from client.intake.walking import MAX_FILES, MAX_STUDY_IMAGES, files_below
from client.overrides import Overruled
from client.preprocess import Prepared
from client.quality_limits import QualityLimits
from client.reading import Imaged, Reading, read_patient
from client.site_sections import Masks
from protocol.config import Preprocessing
from protocol.errors import DataError
from shared_models.labels import CLASS_NAMES

__all__ = ["mapper", "read_dicom_site", "read_headers"]

Progress = Callable[[int, int], None]
Map = Callable[..., Iterable[Any]]
CHUNK = 200
LIMITS = QualityLimits()


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
def mapper(workers: int) -> Iterator[Map]:
    """Yield ``map``, in this process or over several that start clean (no inherited threads)."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def read_headers(
    paths: Sequence[str],
    each: Map,
    *,
    bare: bool = False,
    max_study_images: int = MAX_STUDY_IMAGES,
    progress: Progress | None = None,
) -> tuple[list[Frame], Counter[str]]:
    """Read the headers of many files.

    Parameters
    ----------
    each : callable
        As `mapper` yields it; it is given chunks of paths.
    max_study_images : int
        Of a study of more images only one more than that is kept, so that it can be told.

    Returns
    -------
    list of Frame
        In the order of the paths.
    Counter
        Reason to how many files were refused.
    """
    frames: list[Frame] = []
    refused: Counter[str] = Counter()
    per_study: Counter[str] = Counter()
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    done = 0
    for chunk, (found, bad) in zip(chunks, each(partial(_headers, bare=bare), chunks), strict=True):
        for frame in found:
            per_study[frame.study_uid] += 1
            if per_study[frame.study_uid] <= max_study_images + 1:
                frames.append(frame)
        refused += bad
        done += len(chunk)
        if progress is not None:
            progress(done, len(paths))
    return frames, refused


def read_dicom_site(
    root: Path,
    secret: bytes,
    options: Preprocessing,
    *,
    masks: Masks | None = None,
    mask_root: Path | None = None,
    link: Mapping[str, str] | None = None,
    limits: QualityLimits = LIMITS,
    bare: bool = False,
    overruled: Overruled | None = None,
    max_files: int = MAX_FILES,
    max_study_images: int = MAX_STUDY_IMAGES,
    sorter: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[list[Imaged], Counter[tuple[str, str]]]:
    """Read a tree of DICOM files, and masks if the site has them.

    Parameters
    ----------
    root, mask_root : Path
        Folders of the images and of the masks.
    link : mapping, optional
        Folder of contours to patient number, for masks of format ``sunnybrook``.
    limits : QualityLimits
        Beyond which a study or a mask is set aside.
    bare : bool
        Whether files without a DICOM preamble are read.
    overruled : mapping, optional
        What people decided about single series.
    max_files, max_study_images : int
        More files are an error; a study of more images is not used.
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
        If most masks follow another label convention than ``site.yaml`` states, a decision names
        a series that is not there, or there are more than ``max_files`` files.
    """
    tell = progress or (lambda done, total: None)
    paths = files_below(root, max_files)
    total = 2 * len(paths)
    refused: Counter[tuple[str, str]] = Counter()
    with mapper(workers) as each:
        frames, bad = read_headers(
            paths,
            each,
            bare=bare,
            max_study_images=max_study_images,
            progress=lambda n, _: tell(n, total),
        )
        refused.update({("file", reason): count for reason, count in bad.items()})
        done = len(paths)
        jobs = patients_of(
            frames,
            secret,
            options,
            refused,
            limits=limits,
            masks=masks,
            mask_root=mask_root,
            link=link,
            overruled=overruled,
            sorter=sorter,
            max_study_images=max_study_images,
        )
        outcomes = []
        for outcome in each(read_patient, jobs):
            outcomes.append(outcome)
            done += outcome.num_files
            tell(min(done, total), total)
    tell(total, total)
    return _collect(outcomes, refused)


def read_frames(
    root: Path,
    *,
    bare: bool = False,
    max_files: int = MAX_FILES,
    max_study_images: int = MAX_STUDY_IMAGES,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[list[Frame], Counter[str]]:
    """Read the frames of all files below a folder, without their pixels; and count the refused.

    Raises
    ------
    DataError
        If there are more than ``max_files`` files.
    """
    paths = files_below(root, max_files)
    with mapper(workers) as each:
        return read_headers(
            paths, each, bare=bare, max_study_images=max_study_images, progress=progress
        )


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
    patients = without_copies(patients, refused)
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
