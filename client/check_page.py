"""One page a person can look at: what was read, what was not and why, and how the images look.

The page shows patients, so it stays at the hospital: it is written readable by its owner only, and
names a patient by the hospital's own pseudonym.

Axes: Z slices, Y rows, X columns; an RGB image is uint8 (Y, X, 3).
"""

import base64
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image
from scipy.ndimage import binary_erosion

from client.check import Report
from client.cohort import Patient
from client.quality import Quality
from client.quality_limits import QualityLimits
from shared_models.labels import LV, MYO, RV

__all__ = ["write_page"]

MAX_SHOWN = 300
THUMB_PX = 128
# Endocardium, epicardium, right ventricle; told apart by colour-blind readers.
OUTLINES = (((LV,), (230, 159, 0)), ((LV, MYO), (86, 180, 233)), ((RV,), (204, 121, 167)))


@dataclass(frozen=True)
class _Strip:
    """One figure of quality over all patients: a dot each, on a line from ``low`` to ``high``."""

    name: str
    unit: str
    dots: tuple[tuple[float, str], ...]
    low: float
    high: float
    limits: tuple[float, ...]

    def place(self, value: float) -> float:
        """Return where a value stands on the line, in percent of its length."""
        span = self.high - self.low or 1.0
        return round(100 * min(max((value - self.low) / span, 0.0), 1.0), 2)


def write_page(
    path: Path, report: Report, patients: Sequence[Patient], limits: QualityLimits
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path : Path
        Where; an existing file is replaced.
    report : Report
        What ``concors-client check`` prints.
    patients : sequence of Patient
        The usable ones; the first 300 are shown.
    limits : QualityLimits
        The site's, drawn beside the figures.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    imaged = [patient for patient in patients if patient.has_images]
    environment = Environment(loader=PackageLoader("client", ""), autoescape=True)
    text = environment.get_template("check_page.html.j2").render(
        report=report,
        sheet=[_entry(patient) for patient in imaged[:MAX_SHOWN]],
        hidden=max(0, len(imaged) - MAX_SHOWN),
        strips=_strips(imaged, limits),
        groups=_groups(report),
    )
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _groups(report: Report) -> list[tuple[str, list[tuple[str, int, float]]]]:
    """Return bar charts: title, then (name, count, share in percent) of each bar."""
    tables = (("Vendors", report.vendors), ("Field strengths", report.field_strengths_t))
    return [
        (title, [(name, n, 100 * n / max(counts.values())) for name, n in counts.items()])
        for title, counts in tables
        if counts
    ]


def _entry(patient: Patient) -> dict[str, Any]:
    middle = patient.cine.shape[1] // 2
    labels = [None, None] if patient.labels is None else list(patient.labels[:, middle])
    return {
        "key": patient.key,
        "facts": f"{patient.vendor}, {patient.cine.shape[1]} slices",
        "phases": [
            (name, _png(_drawn(patient.cine[at, middle], labels[at])))
            for at, name in enumerate(("end-diastole", "end-systole"))
        ],
    }


def _drawn(image: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Return an image in [0, 1], (Y, X), as RGB with the outlines of its mask."""
    grey = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    if labels is None:
        return rgb
    for classes, colour in OUTLINES:
        region = np.isin(labels, classes)
        rgb[region & ~binary_erosion(region)] = colour
    return rgb


def _png(rgb: np.ndarray) -> str:
    stream = io.BytesIO()
    image = Image.fromarray(rgb)
    image.thumbnail((THUMB_PX, THUMB_PX))
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _strips(patients: Sequence[Patient], limits: QualityLimits) -> list[_Strip]:
    measured = [(p.key, p.quality) for p in patients if p.quality is not None]
    rows = (
        ("slices", "", "num_slices", (limits.min_slices,)),
        ("slice distance", "mm", "slice_distance_mm", limits.slice_distance_mm),
        ("covered length", "mm", "extent_mm", (limits.min_extent_mm,)),
        ("signal to noise", "", "signal_to_noise", (limits.min_signal_to_noise,)),
        ("contrast to noise", "", "contrast_to_noise", (limits.min_contrast_to_noise,)),
        ("displacement of a slice", "mm", "misalignment_mm", (limits.max_misalignment_mm,)),
        ("slices out of step", "share", "mistriggered", (limits.max_mistriggered,)),
        ("characters in a line", "", "text_characters", (limits.max_text_characters,)),
    )
    return [
        _strip(name, unit, field, limit, measured) for name, unit, field, limit in rows if measured
    ]


def _strip(
    name: str,
    unit: str,
    field: str,
    limits: Sequence[float],
    measured: Sequence[tuple[str, Quality]],
) -> _Strip:
    dots = tuple((float(getattr(quality, field)), key) for key, quality in measured)
    high = max(*(value for value, _ in dots), *limits)
    return _Strip(name, unit, dots, 0.0, 1.05 * high if math.isfinite(high) else 1.0, tuple(limits))
