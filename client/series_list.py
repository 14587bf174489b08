"""Every series of a hospital and what it is taken for: behind ``concors-client sort``.

The list is for the hospital's own eyes, and still names no patient: series and patients stand as
keyed hashes, in an order that follows from these alone.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.imaging import read_frames
from client.intake.decoder import Decoder
from client.intake.frame import Frame
from client.intake.parts import UNSURE_BELOW, Part, sort_parts
from client.intake.planes import planes
from client.overrides import IGNORE, series_key, site_overrides, told
from client.pseudonyms import load_secret, pseudonym
from client.site import inside, load_site, site_sorter
from client.sorter import decide
from protocol.errors import ConfigError

__all__ = ["Row", "list_series", "write_list"]

Progress = Callable[[int, int], None]
COLUMNS = (
    "series", "patient", "images", "planes", "found_sequence", "found_view", "confidence", "by",
    "reason", "sequence", "view",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One series, or one part of a mixed one, by its pseudonym."""

    series: str
    patient: str
    images: int
    planes: int
    part: Part

    @property
    def unsure(self) -> bool:
        return self.part.confidence < UNSURE_BELOW


def list_series(site_dir: Path, progress: Progress | None = None) -> tuple[list[Row], Counter[str]]:
    """Sort every series of a hospital, in the order of patients' and series' pseudonyms.

    Returns
    -------
    list of Row
        One a series, or a part of a mixed one.
    Counter
        Files that could not be sorted, by their reason.

    Raises
    ------
    ConfigError
        If ``site.yaml`` is wrong, or the hospital has no DICOM images.
    DataError
        If the overrides cannot be used.
    """
    config = load_site(site_dir)
    if config.members:
        folders = [(site_dir / member).resolve() for member in config.members]
        members = [list_series(folder, progress) for folder in folders]
        refusals = (Counter(refused) for _, refused in members)
        return [row for rows, _ in members for row in rows], sum(refusals, Counter())
    if config.images is None or config.images.format != "dicom":
        raise ConfigError(
            f"{config.name} has no DICOM images to sort; set images.format to dicom in site.yaml."
        )
    secret = load_secret(site_dir, config.secret)
    frames, refused = read_frames(
        inside(site_dir, config.images.path, "images.path"),
        bare=config.images.without_preamble,
        max_files=config.images.max_files,
        workers=config.workers,
        progress=progress,
    )
    overruled = site_overrides(site_dir, config.images)
    overrides = told(overruled, secret, {frame.series_uid for frame in frames})
    sorter = site_sorter(site_dir, config.images)
    studies: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        studies.setdefault((frame.patient_id, frame.study_uid), []).append(frame)
    rows = []
    for (patient, _), study in studies.items():
        key = pseudonym(secret, patient)
        parts = sort_parts(study, overrides)
        if sorter is not None:
            with Decoder() as decoder:
                parts = decide(parts, sorter, decoder)
        for part in parts:
            name = series_key(secret, part.series_uid, part.number)
            rows.append(Row(name, key, len(part.frames), len(planes(part.frames)), part))
    return sorted(rows, key=lambda row: (row.patient, row.series)), refused


def write_list(path: Path, rows: Sequence[Row]) -> None:
    """Write the list as a table whose last two columns a person may fill, as overrides.

    What a person has decided already stands there, so that the file can replace the overrides.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        part = row.part
        decided = part.by == "person"
        words = (IGNORE if part.ignored else part.sequence, "" if part.ignored else part.view)
        writer.writerow(
            (row.series, row.patient, row.images, row.planes, part.sequence, part.view,
             f"{part.confidence:.2f}", part.by, part.reason, *(words if decided else ("", "")))
        )  # fmt: skip
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(text.getvalue())
    except OSError as error:
        raise ConfigError(
            f"the list cannot be written ({error.strerror}); give --csv a file in a folder that "
            "exists and can be written."
        ) from error
