"""What a hospital has, before it joins: the data behind ``concors-client check``.

The report is for the hospital's own screen and tells exact counts; `Report.leaves` is what a survey
would send, with small counts withheld.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.cohort import Cohort, Patient, Refusal
from client.intake.dropped import DroppedTags, dropped_tags
from client.site import SiteConfig, inside
from privacy.suppression import suppress_count, suppress_counts

__all__ = ["Report", "examine"]


@dataclass(frozen=True)
class Report:
    """The state of one hospital's data.

    Attributes
    ----------
    site : str
        Name of the hospital.
    found, usable : int
        Patients with MR images; patients with a usable short-axis cine. At a hospital without
        images, the patients of its outcome table.
    refused : tuple of Refusal
        What was not used, and why.
    vendors, field_strengths_t : mapping of str to int
        Usable patients by scanner.
    with_masks, with_lge, with_outcome, events : int
        Usable patients.
    median_months : float
        Median follow-up of those with an outcome; NaN if there is none.
    slices : tuple of int
        Fewest and most slices of a stack.
    spacing_mm : tuple of float
        Smallest and largest slice distance.
    missing : mapping of str to float
        Share of patients with an outcome who lack a covariate, in [0, 1].
    leaves : mapping of str to str
        What a survey would send, in words; small counts withheld.
    trains : tuple of str
        Stages the hospital could train: ``segment``, ``prognosis``.
    dropped : DroppedTags or None
        Which tags were seen in the files and not kept; None where there is no DICOM.
    """

    site: str
    found: int
    usable: int
    refused: tuple[Refusal, ...]
    vendors: Mapping[str, int]
    field_strengths_t: Mapping[str, int]
    with_masks: int
    with_lge: int
    with_outcome: int
    events: int
    median_months: float
    slices: tuple[int, int]
    spacing_mm: tuple[float, float]
    missing: Mapping[str, float]
    leaves: Mapping[str, str]
    trains: tuple[str, ...]
    dropped: DroppedTags | None = None


def examine(cohort: Cohort, config: SiteConfig, site_dir: Path | None = None) -> Report:
    """Summarise a cohort for the hospital's research engineer.

    With the site's directory given, its DICOM files are looked through once more for what stands in
    them and is not kept.
    """
    patients = cohort.patients
    followed = [p for p in patients if p.event >= 0 and math.isfinite(p.months)]
    unusable = sum(refusal.count for refusal in cohort.refused if refusal.kind == "patient")
    imaged = [p for p in patients if p.has_images]
    vendors = _count(p.vendor for p in imaged)
    fields = _count(_tesla(p.field_strength_t) for p in imaged)
    events = sum(p.event == 1 for p in followed)
    with_masks = sum(p.labels is not None for p in patients)
    missing = _missing(followed)
    distances = [p.spacing_mm[0] for p in imaged] or [math.nan]
    depths = [p.cine.shape[1] for p in imaged] or [0]
    trains = []
    if any(p.labels is not None and not p.partial for p in patients):
        trains.append("segment")
    # Without an event, or without a survivor, there is nothing to tell apart.
    if 0 < events < len(followed):
        trains.append("prognosis")
    return Report(
        site=cohort.site,
        found=len(patients) + unusable,
        usable=len(patients),
        refused=cohort.refused,
        vendors=vendors,
        field_strengths_t=fields,
        with_masks=with_masks,
        with_lge=sum(p.lge is not None for p in patients),
        with_outcome=len(followed),
        events=events,
        median_months=float(np.median([p.months for p in followed])) if followed else math.nan,
        slices=(min(depths), max(depths)),
        spacing_mm=(min(distances), max(distances)),
        missing=missing,
        leaves=_leaves(patients, len(followed), events, vendors, fields, config.min_cell),
        trains=tuple(trains),
        dropped=None if site_dir is None else _dropped(config, site_dir),
    )


def _dropped(config: SiteConfig, site_dir: Path) -> DroppedTags | None:
    if config.images is None or config.images.format != "dicom":
        return None
    root = inside(site_dir, config.images.path, "images.path")
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return dropped_tags(paths, bare=config.images.without_preamble)


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _tesla(field_strength_t: float) -> str:
    return f"{field_strength_t:g} T" if math.isfinite(field_strength_t) else "unknown"


def _missing(followed: Sequence[Patient]) -> dict[str, float]:
    names = sorted({name for p in followed for name in p.covariates})
    return {
        name: float(np.mean([math.isnan(p.covariates.get(name, math.nan)) for p in followed]))
        for name in names
    }


def _leaves(
    patients: Sequence[Patient],
    followed: int,
    events: int,
    vendors: Mapping[str, int],
    fields: Mapping[str, int],
    min_cell: int,
) -> dict[str, str]:
    def told(count: int | None) -> str:
        return f"withheld (1 to {min_cell - 1})" if count is None else str(count)

    def table(counts: Mapping[str, int]) -> str:
        safe = suppress_counts(counts, min_cell)
        cells = (f"{k} {'withheld' if v is None else v}" for k, v in safe.items())
        return ", ".join(cells)

    enough = followed >= min_cell
    return {
        "patients": told(suppress_count(len(patients), min_cell)),
        "events": told(suppress_count(events, min_cell)),
        "vendors": table(vendors),
        "field strengths": table(fields),
        "follow-up": "median and person-years" if enough else "nothing (too few patients)",
        "covariates": "count, mean and spread of each" if enough else "nothing (too few patients)",
        "training": "model weights; never an image, a number, a name or a date",
    }
