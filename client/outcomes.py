"""The hospital's outcome table: follow-up, events and covariates, one row a patient.

Whatever is wrong with the table stops the client with one sentence that names the column and the
line, never the patient: a table that is half read would train on the wrong half.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.dictionary import convert, is_plausible
from client.follow_up import NO_EVENT_KNOWN, from_dates, parse_event, parse_months
from client.site_sections import CovariateColumn, Outcomes
from client.tables import read_table
from protocol.errors import DataError

__all__ = ["NO_EVENT_KNOWN", "OutcomeRow", "OutcomeTable", "read_outcomes"]


@dataclass(frozen=True)
class OutcomeRow:
    """Follow-up (months; NaN if unknown), event, canonical covariates.

    ``event`` is 0 censored, 1 the event, 2 and more a competing one, -1 unknown.

    ``start_months`` is when observation began (0 without left truncation), ``held_out`` whether the
    hospital keeps the patient aside in every study (``None``: it leaves that to the study).
    """

    months: float
    event: int
    covariates: Mapping[str, float]
    start_months: float = 0.0
    held_out: bool | None = None


@dataclass(frozen=True)
class OutcomeTable:
    """Rows by the hospital's own patient number (which stays in this object), and what was blanked.

    ``implausible`` counts, by covariate, single values outside the plausible range that were set to
    missing.
    """

    rows: Mapping[str, OutcomeRow]
    implausible: Mapping[str, int]


def _column(header: Sequence[str], name: str, key: str, file: str) -> int:
    if header.count(name) != 1:
        found = "no" if name not in header else "more than one"
        raise DataError(f"{file} has {found} column '{name}'; correct {key} in site.yaml.")
    return header.index(name)


def _follow_up(
    row: Sequence[str], columns: Outcomes, at: Mapping[str, int], place: str
) -> tuple[float, int]:
    if columns.dates is None:
        months = parse_months(row[at["months"]].strip(), place)
        return months, parse_event(row[at["event"]].strip(), columns.causes, place)
    cells = [row[at[f"dates.{key}"]].strip() for key in ("cmr", "last_contact", "event")]
    return from_dates(cells[0], cells[1], cells[2], columns.dates.order, place)


def _start(cell: str, months: float, place: str) -> float:
    start = parse_months(cell, place)
    if math.isnan(months):
        return 0.0
    if math.isnan(start):
        raise DataError(f"{place}: the start of follow-up is empty; write months, or 0.")
    if start >= months:
        raise DataError(
            f"{place}: follow-up starts when it ends or later; correct the two times, or leave the "
            "follow-up time empty."
        )
    return start


def _held_out(cell: str, place: str) -> bool:
    if cell not in {"0", "1"}:
        raise DataError(f"{place}: held_out is neither 0 nor 1; write 1 for who is kept aside.")
    return cell == "1"


def read_outcomes(
    path: Path, columns: Outcomes, covariates: Mapping[str, CovariateColumn]
) -> OutcomeTable:
    """Read the table and bring every covariate to its canonical unit.

    Parameters
    ----------
    path : Path
        CSV or Parquet, see `client.tables.read_table`.
    columns : Outcomes
        Names of the patient, months and event columns (or those of dates), and of the optional.
    covariates : mapping
        Canonical name to column and unit.

    Raises
    ------
    DataError
        If the file or a column is missing, the file is too large, a patient stands twice, a time is
        negative or neither a number nor a date, follow-up starts no earlier than it ends, an event
        is not of ``columns.causes``, a covariate is not a number, or most values of a covariate are
        implausible in the unit that is stated.
    """
    header, rows = read_table(path)
    file = path.name
    at = {
        key: _column(header, getattr(columns, key), f"outcomes.{key}", file)
        for key in ("patient", "months", "event", "start", "held_out")
        if getattr(columns, key) is not None
    }
    if columns.dates is not None:
        for key in ("cmr", "last_contact", "event"):
            name = getattr(columns.dates, key)
            at[f"dates.{key}"] = _column(header, name, f"outcomes.dates.{key}", file)
    at_covariate = {
        name: _column(header, entry.column, f"covariates.{name}", file)
        for name, entry in covariates.items()
    }
    table: dict[str, OutcomeRow] = {}
    implausible: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        place = f"{file}, line {line}"
        if len(row) != len(header):
            raise DataError(
                f"{place}: {len(row)} cells under {len(header)} headings; mend the row."
            )
        patient = row[at["patient"]].strip()
        if not patient:
            raise DataError(f"{place}: the patient column is empty; fill it or remove the row.")
        if patient in table:
            raise DataError(f"{place}: this patient stands in the table twice; keep one row.")
        months, event = _follow_up(row, columns, at, place)
        if math.isnan(months) or event == NO_EVENT_KNOWN:
            months, event = math.nan, NO_EVENT_KNOWN
        start = _start(row[at["start"]].strip(), months, place) if "start" in at else 0.0
        aside = _held_out(row[at["held_out"]].strip(), place) if "held_out" in at else None
        values = _covariates(row, covariates, at_covariate, place, implausible)
        table[patient] = OutcomeRow(months, event, values, start, aside)
    _refuse_wrong_units(table, covariates, implausible, file)
    return OutcomeTable(table, implausible)


def _covariates(
    row: Sequence[str],
    covariates: Mapping[str, CovariateColumn],
    at: Mapping[str, int],
    place: str,
    implausible: dict[str, int],
) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in sorted(covariates):
        try:
            value = convert(name, row[at[name]], covariates[name].unit)
        except DataError as error:
            raise DataError(f"{place}: {error.sentence}") from error
        if not math.isnan(value) and not is_plausible(name, value):
            # A cholesterol of 0, an age of 999: the registry's way to write "missing".
            implausible[name] = implausible.get(name, 0) + 1
            value = math.nan
        values[name] = value
    return values


def _refuse_wrong_units(
    table: Mapping[str, OutcomeRow],
    covariates: Mapping[str, CovariateColumn],
    implausible: Mapping[str, int],
    file: str,
) -> None:
    for name, count in implausible.items():
        known = sum(not math.isnan(row.covariates[name]) for row in table.values())
        if count > known:
            raise DataError(
                f"most values of {name} in {file} are impossible in {covariates[name].unit}; "
                f"correct covariates.{name}.unit in site.yaml."
            )
