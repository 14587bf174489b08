"""What people at the hospital decided about series: ``overrides.csv``, filled from the sorting.

A series is named by its pseudonym, as ``concors-client sort`` prints it; the number of a part
stands after a point where the series is mixed. No UID, number or name of a patient is written.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from client.intake.overruling import Override
from client.pseudonyms import pseudonym
from client.site import inside
from client.site_sections import Images
from protocol.errors import DataError
from protocol.series import SEQUENCES, VIEWS

__all__ = [
    "IGNORE",
    "Overruled",
    "overrides_digest",
    "read_overrides",
    "series_key",
    "site_overrides",
    "told",
]

IGNORE = "ignore"
COLUMNS = ("series", "sequence", "view")
KEY = re.compile(r"([0-9a-f]{16})(?:\.([1-9][0-9]{0,2}))?")
MAX_BYTES = 8 * 2**20

#: By the pseudonym of a series and the number of a part, 0 for the whole series.
Overruled = Mapping[tuple[str, int], Override]


def series_key(secret: bytes, series_uid: str, number: int) -> str:
    """Return how a series, or a part of a mixed one, is named to people at the hospital."""
    key = pseudonym(secret, f"series/{series_uid}")
    return f"{key}.{number}" if number else key


def site_overrides(site_dir: Path, images: Images) -> dict[tuple[str, int], Override]:
    """Return what the table that ``site.yaml`` names says; nothing where it names none."""
    if images.overrides is None:
        return {}
    return read_overrides(inside(site_dir, images.overrides, "images.overrides"))


def read_overrides(path: Path) -> dict[tuple[str, int], Override]:
    """Read the table; columns beyond ``series``, ``sequence`` and ``view`` are for people.

    An empty cell leaves the rule's word; ``ignore`` in the column ``sequence`` sets the series
    aside.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a column, or a row is wrong or stands twice.
    """
    rows: dict[tuple[str, int], Override] = {}
    for number, row in enumerate(_rows(path), start=2):
        cells = {name: (row.get(name) or "").strip().lower() for name in COLUMNS}
        # A row as the sorting wrote it: a person has nothing to say on it.
        if not (cells["sequence"] or cells["view"]):
            continue
        key, override = _override(cells, number)
        if key in rows:
            raise DataError(
                f"overrides: row {number} names a series that an earlier row names; keep one."
            )
        rows[key] = override
    return rows


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"overrides: the table is larger than {MAX_BYTES // 2**20} MB.")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"overrides: the table has no column '{missing[0]}'; start from the file that "
                    "concors-client sort --csv writes."
                )
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            "overrides: the table cannot be read as CSV in UTF-8; save it again in that form."
        ) from error


def _override(cells: Mapping[str, str], number: int) -> tuple[tuple[str, int], Override]:
    found = KEY.fullmatch(cells["series"])
    if found is None:
        raise DataError(
            f"overrides: row {number} names no series (16 hexadecimal digits, and .N for a part); "
            "copy the key that concors-client sort prints."
        )
    sequence, view = cells["sequence"], cells["view"]
    for what, word, known in (("sequence", sequence, (*SEQUENCES, IGNORE)), ("view", view, VIEWS)):
        if word and word not in known:
            raise DataError(
                f"overrides: row {number} has an unknown {what}; write one of {', '.join(known)}."
            )
    key = (found[1], int(found[2] or 0))
    if sequence == IGNORE:
        return key, Override(ignore=True)
    return key, Override(sequence or None, view or None)


def told(
    overruled: Overruled, secret: bytes, series_uids: Iterable[str]
) -> dict[tuple[str, int], Override]:
    """Return the overrides by series UID.

    Raises
    ------
    DataError
        If one names a series that is not among these.
    """
    if not overruled:
        return {}
    uids = {series_key(secret, uid, 0): uid for uid in series_uids}
    strange = sum(key not in uids for key, _ in overruled)
    if strange:
        raise DataError(
            f"overrides: {strange} of {len(overruled)} rows name a series that is not among the "
            "images; remove them, or run concors-client sort again and copy its keys."
        )
    return {(uids[key], number): override for (key, number), override in overruled.items()}


def overrides_digest(overruled: Overruled) -> str:
    """Return a hash of the decisions, for the name of what was made under them."""
    rows = sorted(
        (key, number, o.sequence or "", o.view or "", o.ignore)
        for (key, number), o in overruled.items()
    )
    return hashlib.sha256(repr(rows).encode()).hexdigest()
