"""Who took part: one column a hospital."""

from collections.abc import Iterable
from typing import Any

from server.report.noise import SIDES, marked, noised_count
from server.report.table import Column, Row, Table
from server.report.text import DASH, count, mean_sd, number, percent
from server.results import Hospital, Results

__all__ = ["cohort_table", "hospital_columns", "label_of", "secure_notes"]

BINARY_UNITS = {"0/1", "sex", "yes/no"}
VENDORS = {
    "siemens": "Siemens",
    "philips": "Philips",
    "ge": "GE",
    "canon": "Canon",
    "other": "Other",
}
LABELS = {
    "age": "Age",
    "sex": "Male sex",
    "bmi": "Body-mass index",
    "heart_rate": "Heart rate",
    "qrs": "QRS duration",
    "nyha": "NYHA class",
    "creatinine": "Creatinine",
    "nt_probnp": "NT-proBNP",
    "diabetes": "Diabetes",
    "af": "Atrial fibrillation",
    "nsvt": "Non-sustained VT",
    "lbbb": "Left bundle branch block",
    "family_scd": "Sudden death in the family",
    "sbp": "Systolic blood pressure",
    "height": "Height",
    "weight": "Weight",
}


def label_of(name: str) -> str:
    """Return what a clinician calls a covariate of the data dictionary."""
    return LABELS.get(name, name.replace("_", " "))


def hospital_columns(hospitals: Iterable[Hospital]) -> tuple[Column, ...]:
    """Return one column a hospital, training hospitals and external ones in a group each."""
    return tuple(
        Column(
            hospital.name,
            "External, never trained" if hospital.role == "external" else "Training",
            hospital.role == "external",
        )
        for hospital in hospitals
    )


def cohort_table(results: Results) -> Table:
    """Return the table, training hospitals first."""
    ordered = sorted(results.hospitals, key=lambda hospital: hospital.role == "external")
    k = results.study.min_cell
    rows = [
        Row("Patients", tuple(_patients(h, k) for h in ordered), strong=True),
        Row("With the event", tuple(_events(h, k) for h in ordered)),
        Row(
            "Follow-up, person-years",
            tuple(marked(h, number(h.person_years, 0)) for h in ordered),
        ),
        Row(
            "Median follow-up, months",
            tuple(marked(h, number(h.median_followup_months, 1)) for h in ordered),
        ),
        *_counts("Scanner vendor", ordered, "vendors", k),
        *_counts("Field strength, T", ordered, "field_strengths_t", k),
        *_covariates(ordered),
        *_counts("Not usable", ordered, "refused", k),
    ]
    return Table(hospital_columns(ordered), tuple(rows))


def secure_notes(results: Results) -> list[str]:
    """Return who is shown only together, and who permits or refuses to be shown alone."""
    k = results.study.min_cell
    summed = [hospital for hospital in results.hospitals if hospital.together]
    if not summed:
        return []
    notes = [
        f"{', '.join(hospital.together)} are told of together: their numbers travelled as a secure "
        "sum, which shows no hospital's own, to the coordinating centre neither. Totals below "
        f"{k} patients are withheld."
        for hospital in summed
    ]
    for hospital in (hospital for hospital in results.hospitals if not hospital.together):
        if hospital.silent:
            notes.append(
                f"{hospital.name} told nothing: too few hospitals have its role for a sum to hide "
                "it, and it does not permit its own numbers to be shown."
            )
        else:
            notes.append(
                f"{hospital.name} permits its own numbers to be shown, as too few hospitals have "
                "its role for a secure sum."
            )
    return notes


def _patients(hospital: Hospital, min_cell: int) -> str:
    return noised_count(hospital, _shown(hospital, hospital.patients, min_cell), SIDES)


def _shown(hospital: Hospital, value: int | None, min_cell: int) -> str:
    return DASH if hospital.silent else count(value, min_cell)


def _events(hospital: Hospital, min_cell: int) -> str:
    share = percent(hospital.events, hospital.patients)
    return noised_count(hospital, _shown(hospital, hospital.events, min_cell) + share)


def _counts(title: str, hospitals: list[Hospital], field: str, min_cell: int) -> list[Row]:
    tables: list[tuple[Hospital, dict[str, Any]]] = [(h, getattr(h, field)) for h in hospitals]
    keys = sorted({key for _, table in tables for key in table})
    if not keys:
        return []
    rows = [Row(title, heading=True)]
    for key in keys:
        cells = (
            marked(h, count(table[key], min_cell)) if key in table else "0" for h, table in tables
        )
        rows.append(Row(VENDORS.get(key, key) if field == "vendors" else key, tuple(cells)))
    return rows


def _covariates(hospitals: list[Hospital]) -> list[Row]:
    names: dict[str, str] = {}
    for hospital in hospitals:
        for name in hospital.covariates.names if hospital.covariates else ():
            names.setdefault(name, hospital.units.get(name, ""))
    if not names:
        return []
    rows = [Row("Characteristics (mean ± SD, or share of patients)", heading=True)]
    for name, unit in names.items():
        label = label_of(name)
        binary = unit in BINARY_UNITS
        shown = "" if not unit or binary else f", {unit}"
        cells = (marked(h, _covariate(h, name, binary)) for h in hospitals)
        rows.append(Row(f"{label}{shown}", tuple(cells)))
    return rows


def _covariate(hospital: Hospital, name: str, binary: bool) -> str:
    moments = hospital.covariates
    if moments is None or name not in moments.names:
        return "not recorded"
    index = moments.index(name)
    n, missing = int(moments.n[index]), int(moments.missing[index])
    if n == 0:
        return DASH
    mean, sd = float(moments.mean[index]), float(moments.sd[index])
    digits = 0 if abs(mean) >= 100 else 1
    text = f"{100 * mean:.0f} %" if binary else mean_sd(mean, sd, digits)
    gone = 100 * missing / (n + missing)
    return f"{text}\n{gone:.0f} % missing" if missing else text
