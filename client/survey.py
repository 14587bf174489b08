"""The survey stage at the hospital: what it has, as suppressed counts and moments only."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from client.cohort import Patient, labelled
from client.dictionary import COVARIATES
from client.hospital import Hospital
from privacy.suppression import suppress_counts
from protocol.config import Study
from protocol.payload import Answer, Question
from protocol.stats import LifeTable, Moments
from protocol.stats.missingness import Missingness
from protocol.survey_grid import STEP_MONTHS, survey_grid

__all__ = [
    "MONTHS_PER_YEAR",
    "covariate_matrix",
    "had_event",
    "has_outcome",
    "survey",
    "validation_patients",
]

MONTHS_PER_YEAR = 12.0


def has_outcome(patients: Sequence[Patient]) -> list[Patient]:
    """Return the patients whose follow-up is known."""
    return [patient for patient in patients if patient.event >= 0 and np.isfinite(patient.months)]


def had_event(patient: Patient, study: Study) -> bool:
    """Whether a patient had what the study's network predicts: with competing risks, any event."""
    return patient.event > 0 if study.prognosis.num_causes > 1 else patient.event == 1


def validation_patients(hospital: Hospital, study: Study) -> list[Patient]:
    """Return whom a hospital judges a model on, of those whose follow-up is known.

    One named external: all; any other: those it held out.
    """
    external = hospital.name in study.hospitals.external
    return has_outcome(hospital.patients if external else hospital.held_out)


def covariate_matrix(patients: Sequence[Patient], names: Sequence[str]) -> np.ndarray:
    """Return covariates as float64 (num_patients, num_names), NaN where missing."""
    rows = [[patient.covariates.get(name, np.nan) for name in names] for patient in patients]
    return np.array(rows, dtype=np.float64).reshape(len(patients), len(names))


def _suppressed_counts(values: Iterable[str], min_cell: int) -> dict[str, int | None]:
    return suppress_counts(dict(sorted(Counter(values).items())), min_cell)


def survey(hospital: Hospital, question: Question) -> Answer:
    """Answer what the hospital has, so that scales and the time grid can be agreed.

    Moments and the life table, from which constants are derived that enter the models, are of the
    training patients; the descriptive counts are of all patients.

    Returns
    -------
    Answer
        ``patients``, ``events``, ``competing_events``, ``person_years``,
        ``median_followup_months``, ``vendors``, ``field_strengths_t``, ``refused`` (counts,
        ``None`` where suppressed), ``covariates`` (Moments), ``missingness`` (Missingness),
        ``life_table`` (LifeTable on half-years, of what the study's network predicts),
        ``can_train`` (numbers of training patients per stage) and ``min_cell``.
    """
    study, min_cell = question.study, hospital.config.min_cell
    everyone, followed = hospital.patients, has_outcome(hospital.patients)
    training = has_outcome(hospital.training)
    imaged = [patient for patient in everyone if patient.has_images]
    # Observed time: who came late was not under observation before.
    months = np.array([p.months for p in followed])
    observed = months - np.array([p.start_months for p in followed])
    names = study.covariates
    enough = len(followed) >= min_cell
    table = LifeTable.of(
        np.array([p.months for p in training]),
        np.array([had_event(p, study) for p in training]),
        np.zeros(len(training), dtype=int),
        grid_months=survey_grid(study),
        names=("all",),
    )
    refused = Counter({f"{r.kind}: {r.reason}": 0 for c in hospital.cohorts for r in c.refused})
    for cohort in hospital.cohorts:
        for refusal in cohort.refused:
            refused[f"{refusal.kind}: {refusal.reason}"] += refusal.count
    document: dict[str, Any] = {
        "min_cell": min_cell,
        "patients": len(everyone) if len(everyone) >= min_cell else None,
        "events": _count(sum(p.event == 1 for p in followed), min_cell),
        "competing_events": _count(sum(p.event > 1 for p in followed), min_cell),
        "person_years": float(observed.sum() / MONTHS_PER_YEAR) if enough else None,
        # Rounded to the half-year: an exact median is some patient's own follow-up time.
        "median_followup_months": (
            float(np.round(np.median(months) / STEP_MONTHS) * STEP_MONTHS) if enough else None
        ),
        "vendors": _suppressed_counts((p.vendor for p in imaged), min_cell),
        "units": {name: COVARIATES[name].unit for name in names if name in COVARIATES},
        "field_strengths_t": _suppressed_counts(
            (
                f"{p.field_strength_t:g}" if np.isfinite(p.field_strength_t) else "unknown"
                for p in imaged
            ),
            min_cell,
        ),
        "refused": suppress_counts(dict(sorted(refused.items())), min_cell),
        "covariates": Moments.of(names, covariate_matrix(hospital.training, names))
        .suppressed(min_cell)
        .to_dict(),
        "missingness": Missingness.of(names, covariate_matrix(hospital.training, names))
        .suppressed(min_cell)
        .to_dict(),
        "life_table": table.suppressed(min_cell).to_dict(),
        "can_train": {"segment": len(labelled(hospital.training)), "prognosis": len(training)},
    }
    if "sort" in study.stages:
        # Imported here: it reads every series, and no other stage needs it.
        from client.sort import num_sorting_patients

        document["can_train"]["sort"] = num_sorting_patients(hospital, study)
    return Answer(document)


def _count(value: int, min_cell: int) -> int | None:
    return int(value) if value == 0 or value >= min_cell else None
