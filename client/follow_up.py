"""Follow-up from a row of the outcome table: months and event, stated or reckoned from dates.

A date identifies; an interval hardly does. So dates become intervals here, in the one line of code
that sees them, and no error quotes one.
"""

import math
import re
from datetime import date

from protocol.errors import DataError

__all__ = ["MONTH_DAYS", "NO_EVENT_KNOWN", "from_dates", "parse_event", "parse_months"]

NO_EVENT_KNOWN = -1
# The mean Gregorian month.
MONTH_DAYS = 365.2425 / 12
DATE = re.compile(r"(\d{1,4})[-./](\d{1,2})[-./](\d{1,4})(?:[T ][0-9:.+Z-]*)?")
COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")


def parse_months(cell: str, place: str) -> float:
    """Return a time in months; NaN for an empty cell.

    Raises
    ------
    DataError
        If it is not a number, or negative.
    """
    if not cell:
        return math.nan
    try:
        months = float(cell.replace(",", "."))
    except ValueError:
        months = math.nan
    if not math.isfinite(months):
        raise DataError(f"{place}: the follow-up time is not a number; write months or nothing.")
    if months < 0:
        raise DataError(f"{place}: the follow-up time is negative; correct the date of entry.")
    return months


def parse_event(cell: str, causes: int, place: str) -> int:
    """Return 0, or a kind of event from 1 to ``causes``; -1 for an empty cell.

    Raises
    ------
    DataError
        If it is anything else.
    """
    if not cell:
        return NO_EVENT_KNOWN
    known = [str(code) for code in range(causes + 1)]
    if cell.removesuffix(".0") not in known:
        codes = "neither 0 nor 1" if causes == 1 else f"no whole number from 0 to {causes}"
        raise DataError(
            f"{place}: the event is {codes}; recode it (1 = event), or set outcomes.causes in "
            "site.yaml where further numbers are competing events."
        )
    return int(cell[0])


def from_dates(
    cmr: str, last_contact: str, event: str, order: str, place: str
) -> tuple[float, int]:
    """Return (months, event) from three cells of dates.

    Follow-up ends at the event, else at the last contact; without either, or without a date of the
    CMR, it is unknown. A month has 30.44 days.

    Raises
    ------
    DataError
        If a cell is not a date, or follow-up would end before it begins.
    """
    start, last, happened = (_day(cell, order, place) for cell in (cmr, last_contact, event))
    end = last if happened is None else happened
    if start is None or end is None:
        return math.nan, NO_EVENT_KNOWN
    if end < start:
        raise DataError(f"{place}: follow-up ends before the CMR; correct the dates.")
    return (end - start).days / MONTH_DAYS, int(happened is not None)


def _day(cell: str, order: str, place: str) -> date | None:
    if not cell:
        return None
    match = DATE.fullmatch(cell)
    if match is None and order == "ymd":
        match = COMPACT.fullmatch(cell)
    if match is None:
        raise DataError(f"{place}: a date is not written as outcomes.dates.order says; correct it.")
    parts = dict(zip(order, match.groups(), strict=True))
    try:
        if len(parts["y"]) != 4:
            raise ValueError
        return date(int(parts["y"]), int(parts["m"]), int(parts["d"]))
    except ValueError:
        raise DataError(
            f"{place}: a date is not written as outcomes.dates.order says; correct it."
        ) from None
