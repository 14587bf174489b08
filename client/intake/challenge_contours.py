"""Contour text files of the 2009 left-ventricle challenge (Sunnybrook), as a site's masks.

``IM-0001-0048-icontour-manual.txt`` is the endocardium (``o``: the epicardium) on the image whose
file name ends in the number 48. Endocardium is drawn at ED and ES, epicardium at ED only and the
right ventricle never, so that these masks measure but do not train.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.contours import fraction_inside, read_contour
from client.intake.drawn import Drawn, Place, by_phase
from client.intake.mask_planes import fill
from client.intake.stacks import StackPlan
from client.masks import Labelled
from client.tables import read_table
from protocol.errors import DataError
from shared_models.labels import LV, MYO

__all__ = ["MISPLACED", "index_contours", "read_contours", "read_link"]

NAME = re.compile(r"^IM-\d+-(?P<number>\d+)-(?P<kind>[io])contour-(?:manual|auto)\.txt$", re.I)
LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")
# 0.997 and more in sound studies; 0.39 to 0.8 where the contours belong to other images.
MIN_INSIDE = 0.95
MISPLACED = "epicardial contours do not lie around the endocardial ones; the epicardium is left out"


def read_link(path: Path | None) -> dict[str, str] | None:
    """Return folder to patient number from a CSV of (patient number, folder)."""
    if path is None:
        return None
    header, rows = read_table(path)
    if len(header) != 2 or any(len(row) != 2 for row in rows):
        raise DataError(f"{path.name} does not hold two columns, patient number and folder.")
    return {row[1].strip(): row[0].strip() for row in rows}


def index_contours(
    folder: Path, link: Mapping[str, str] | None
) -> tuple[dict[str, list[Path]], int]:
    """Return the contour files below a folder by patient number, and how many files are none."""
    by_patient: dict[str, list[Path]] = {}
    others = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        above = path.relative_to(folder).parts[:-1]
        patients = above[:1] if link is None else [link[part] for part in above if part in link]
        if NAME.match(path.name) and patients:
            by_patient.setdefault(patients[0], []).append(path)
        else:
            others += 1
    return by_patient, others


def read_contours(paths: Sequence[Path], plan: StackPlan) -> Labelled:
    """Read a patient's contours onto the frames of the short-axis cine.

    Raises
    ------
    DataError
        If a contour is damaged, names no image of the cine or reaches beyond it, or fewer than two
        phases are drawn.
    """
    place = _places(plan)
    inner: dict[Place, np.ndarray] = {}
    outer: dict[Place, np.ndarray] = {}
    for path in paths:
        match = NAME.match(path.name)
        if match is None or int(match["number"]) not in place:
            raise DataError("contour that names no image of the short-axis cine")
        into = inner if match["kind"].lower() == "i" else outer
        into[place[int(match["number"])]] = read_contour(path)
    shares = [fraction_inside(inner[at], outer[at]) for at in sorted(outer) if at in inner]
    misplaced = bool(shares) and min(shares) < MIN_INSIDE
    drawn: Drawn = {}
    for contours, label in (({} if misplaced else outer, MYO), (inner, LV)):
        for at, contour in sorted(contours.items()):
            labels = drawn.setdefault(at, np.zeros(plan.shape[2:], np.uint8))
            labels[fill(contour, plan.shape[2:])] = label
    # A phase of which only the epicardium was drawn measures nothing.
    measured = {j for _, j in inner}
    found = by_phase({at: labels for at, labels in drawn.items() if at[1] in measured}, plan)
    return replace(found, partial=True, notes=(MISPLACED,) if misplaced else ())


def _places(plan: StackPlan) -> dict[int, Place]:
    place: dict[int, Place] = {}
    for a, cycle in enumerate(plan.cycles):
        for j, frame in enumerate(cycle.frames):
            match = LAST_NUMBER.search(Path(frame.pixels.path).stem)
            number = int(match[1]) if match else -1
            if place.setdefault(number, (a, j)) != (a, j):
                raise DataError("image files that are not numbered one by one, as contours need")
    return place
