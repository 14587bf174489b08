"""The patients of one hospital, as every later stage sees them: pseudonymous, on common ground.

Axes: phase (0 = ED, 1 = ES), Z slices base to apex, Y rows, X columns.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.intake.ecg import Electrocardiogram, read_ecgs
from client.outcomes import NO_EVENT_KNOWN, OutcomeRow, read_outcomes
from client.preprocess import Prepared
from client.pseudonyms import load_secret, pseudonym
from client.quality import Quality
from client.reading import Imaged
from client.site import SiteConfig, inside, load_site
from client.site_images import site_images
from protocol.config import Preprocessing
from protocol.errors import ConfigError, DataError

__all__ = ["Cohort", "Patient", "Refusal", "labelled", "load_cohort"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Patient:
    """One patient.

    A patient of a hospital without images has a stack of no slice (Z = 0), so that whoever counts,
    splits or tabulates patients need not ask; see `has_images`.

    Attributes
    ----------
    key : str
        Pseudonym, 16 hexadecimal digits.
    cine : ndarray
        float32 (2, Z, Y, X) in [0, 1]; ED, ES.
    labels : ndarray or None
        uint8 (2, Z, Y, X), canonical labels.
    lge : ndarray or None
        float32 (Z, Y, X) in [0, 1] on the cine's grid; zeros where ``lge_present`` is False.
    lge_present : ndarray
        bool (Z,).
    spacing_mm : tuple of float
        (dz, dy, dx), dz centre to centre; NaN without images.
    vendor : str
        siemens, philips, ge, canon or other; other without images.
    field_strength_t : float
        NaN where unknown.
    months : float
        Follow-up; NaN where unknown.
    event : int
        0 censored, 1 event, -1 unknown.
    covariates : mapping
        Canonical name to canonical unit; NaN where missing; only the names the site maps.
    start_months : float
        When observation began; 0 without left truncation, else below ``months``.
    aside : bool or None
        Whether the hospital keeps the patient out of every training; ``None``: the study decides.
    quality : Quality or None
        Figures of the cine, for the hospital's own eyes; None for an archive of two phases.
    partial : bool
        The expert drew some classes only; no network trains on such labels.
    ecg : Electrocardiogram or None
        The patient's electrocardiogram.
    """

    key: str
    cine: np.ndarray
    labels: np.ndarray | None
    lge: np.ndarray | None
    lge_present: np.ndarray
    spacing_mm: tuple[float, float, float]
    vendor: str
    field_strength_t: float
    months: float
    event: int
    covariates: Mapping[str, float]
    start_months: float = 0.0
    aside: bool | None = None
    quality: Quality | None = None
    partial: bool = False
    ecg: Electrocardiogram | None = None

    @property
    def has_images(self) -> bool:
        return self.cine.shape[1] > 0


def labelled(patients: Sequence[Patient]) -> list[Patient]:
    """Return the patients with expert masks of every class."""
    return [patient for patient in patients if patient.labels is not None and not patient.partial]


@dataclass(frozen=True)
class Refusal:
    """What was not used, why, and how often.

    ``kind`` is file, series, mask, patient, outcome or ecg; or stack: what was amiss and mended.
    """

    kind: str
    reason: str
    count: int


@dataclass(frozen=True)
class Cohort:
    """A hospital's patients sorted by key, what was refused, and a hash over all content."""

    site: str
    patients: tuple[Patient, ...]
    refused: tuple[Refusal, ...]
    fingerprint: str


def load_cohort(
    site_dir: Path, preprocessing: Preprocessing, progress: Progress | None = None
) -> Cohort:
    """Read a hospital's directory: from its cache where that is current, else from its files.

    Parameters
    ----------
    site_dir : Path
        Directory with ``site.yaml``.
    preprocessing : Preprocessing
        The study's common ground.
    progress : callable, optional
        Called with (done, total) units of work while files are read.

    Raises
    ------
    ConfigError
        If ``site.yaml`` is wrong or points to what is not there.
    DataError
        If the outcome table is wrong, masks follow another convention than stated, none of the
        masks can be used, or no patient is usable.
    """
    site_dir = Path(site_dir)
    config = load_site(site_dir)
    if config.members:
        return _pooled(site_dir, config, preprocessing, progress)
    secret = load_secret(site_dir, config.secret)
    if config.images is None:
        return _table_only(site_dir, config, secret)
    imaged, refused = site_images(site_dir, config, secret, preprocessing, progress)
    outcomes: dict[str, OutcomeRow] = {}
    if config.outcomes is not None:
        outcomes, implausible = _outcomes(site_dir, config, secret)
        refused.update(implausible)
        keys = {patient.key for patient in imaged}
        refused[("outcome", "row of a patient without usable images")] += len(set(outcomes) - keys)
        refused[("outcome", "patient without a row in the outcome table")] += len(
            keys - set(outcomes)
        )
    empty = dict.fromkeys(sorted(config.covariates), math.nan)
    unknown = OutcomeRow(math.nan, NO_EVENT_KNOWN, empty)
    ecgs = _ecgs(site_dir, config, secret, {entry.key for entry in imaged}, refused)
    patients = [
        _patient(entry, outcomes.get(entry.key, unknown), ecgs.get(entry.key)) for entry in imaged
    ]
    return _cohort(config.name, patients, refused)


def _ecgs(
    site_dir: Path,
    config: SiteConfig,
    secret: bytes,
    keys: Collection[str],
    refused: Counter[tuple[str, str]],
) -> dict[str, Electrocardiogram]:
    if config.ecg is None:
        return {}
    found = read_ecgs(inside(site_dir, config.ecg.path, "ecg.path"), config.ecg.format, refused)
    by_key = {pseudonym(secret, patient): record for patient, record in found.items()}
    refused[("ecg", "record of a patient who is not used")] += len(set(by_key) - set(keys))
    return by_key


def _outcomes(
    site_dir: Path, config: SiteConfig, secret: bytes
) -> tuple[dict[str, OutcomeRow], Counter[tuple[str, str]]]:
    path = _outcome_path(site_dir, config)
    if config.outcomes is None:
        raise ConfigError("site.yaml names no outcome table; add outcomes.")
    table = read_outcomes(path, config.outcomes, config.covariates)
    implausible = Counter(
        {
            ("outcome", f"implausible {name}, set to missing"): count
            for name, count in table.implausible.items()
        }
    )
    return {pseudonym(secret, number): row for number, row in table.rows.items()}, implausible


def _table_only(site_dir: Path, config: SiteConfig, secret: bytes) -> Cohort:
    """Return the cohort of a hospital that takes part with outcomes and covariates alone."""
    outcomes, refused = _outcomes(site_dir, config, secret)
    nothing = Prepared(
        cine=np.zeros((2, 0, 1, 1), np.float32),
        labels=None,
        lge=None,
        lge_present=np.zeros(0, bool),
        spacing_mm=(math.nan, math.nan, math.nan),
    )
    ecgs = _ecgs(site_dir, config, secret, outcomes, refused)
    patients = [
        _patient(Imaged(key, "other", math.nan, nothing), row, ecgs.get(key))
        for key, row in outcomes.items()
    ]
    return _cohort(config.name, patients, refused)


def _outcome_path(site_dir: Path, config: SiteConfig) -> Path:
    if config.outcomes is None:
        raise ConfigError("site.yaml names no outcome table; add outcomes.")
    if not (site_dir / config.outcomes.path).exists():
        raise DataError(
            "the outcome table that site.yaml names does not exist; correct outcomes.path or put "
            "the file there."
        )
    return inside(site_dir, config.outcomes.path, "outcomes.path")


def _patient(imaged: Imaged, outcome: OutcomeRow, ecg: Electrocardiogram | None = None) -> Patient:
    prepared = imaged.prepared
    return Patient(
        key=imaged.key,
        cine=prepared.cine,
        labels=prepared.labels,
        lge=prepared.lge,
        lge_present=prepared.lge_present,
        spacing_mm=prepared.spacing_mm,
        vendor=imaged.vendor,
        field_strength_t=imaged.field_strength_t,
        months=outcome.months,
        event=outcome.event,
        covariates=dict(outcome.covariates),
        start_months=outcome.start_months,
        aside=outcome.held_out,
        quality=imaged.quality,
        partial=prepared.partial,
        ecg=ecg,
    )


def _cohort(site: str, patients: Sequence[Patient], refused: Counter[tuple[str, str]]) -> Cohort:
    ordered = tuple(sorted(patients, key=lambda patient: patient.key))
    reasons = tuple(
        Refusal(kind, reason, count) for (kind, reason), count in sorted((+refused).items())
    )
    return Cohort(site, ordered, reasons, _fingerprint(ordered))


def _fingerprint(patients: Sequence[Patient]) -> str:
    digest = hashlib.sha256()
    for p in patients:
        facts = [p.key, p.spacing_mm, p.vendor, p.field_strength_t, p.months, p.event]
        digest.update(json.dumps([facts, sorted(p.covariates.items())]).encode())
        if p.start_months or p.aside is not None:
            digest.update(json.dumps([p.start_months, p.aside]).encode())
        ecg = None if p.ecg is None else p.ecg.millivolts
        for array in (p.cine, p.labels, p.lge, p.lge_present, ecg):
            if array is not None:
                digest.update(str((array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _pooled(
    site_dir: Path, config: SiteConfig, preprocessing: Preprocessing, progress: Progress | None
) -> Cohort:
    patients: list[Patient] = []
    refused: Counter[tuple[str, str]] = Counter()
    for member in config.members:
        folder = (site_dir / member).resolve()
        if load_site(folder).members:
            raise ConfigError("site.yaml: a member is itself a pooled site; list its members.")
        cohort = load_cohort(folder, preprocessing, progress)
        patients += cohort.patients
        refused.update({(r.kind, r.reason): r.count for r in cohort.refused})
    if len({patient.key for patient in patients}) < len(patients):
        raise DataError(f"{config.name} holds a patient twice; list each member once.")
    return _cohort(config.name, patients, refused)
