"""Which studies a hospital wants: a list of its own, or a query."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

from client.pacs.archive import Study, StudyQuery, is_uid
from protocol.errors import ConfigError

__all__ = ["Entry", "days_query", "matches", "read_list", "unique"]

MAX_LIST_BYTES = 16 << 20
# Wildcards and separators of the query language would ask for other studies than are meant.
ACCESSION = re.compile(r"[^\\*?\"\x00-\x1f\x7f]{1,16}")
DAY = re.compile(r"[0-9]{8}")
MAX_DESCRIPTION = 64


@dataclass(frozen=True)
class Entry:
    """One line of a list: a StudyInstanceUID, or an accession number."""

    line: int
    uid: str = ""
    accession: str = ""


def read_list(path: Path) -> list[Entry]:
    """Read StudyInstanceUIDs and accession numbers, one a line; empty lines and # are skipped.

    What has the form of a UID (numbers with a dot between) is one, all else an accession number. A
    line that stands twice counts once.

    Raises
    ------
    ConfigError
        If the file cannot be read, is larger than 16 MiB or names nothing, or a line is neither.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_LIST_BYTES + 1)
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError("the list cannot be read as UTF-8 text; check --list.") from error
    if len(content) > MAX_LIST_BYTES:
        raise ConfigError("the list is larger than 16 MiB; split it.")
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if is_uid(text):
            entries.setdefault(text, Entry(number, uid=text))
        elif ACCESSION.fullmatch(text):
            entries.setdefault(text, Entry(number, accession=text))
        else:
            raise ConfigError(
                f"line {number} of the list is neither a StudyInstanceUID nor an accession number "
                "of at most 16 characters without wildcards; correct it."
            )
    if not entries:
        raise ConfigError("the list names no study; write one a line.")
    return list(entries.values())


def days_query(
    first: date | None, last: date | None, modality: str, description: str
) -> StudyQuery:
    """Return a query by days (inclusive), modality and description (wildcards ``*`` and ``?``).

    Raises
    ------
    ConfigError
        If the days are in the wrong order or the description cannot stand in a query.
    """
    if first is not None and last is not None and first > last:
        raise ConfigError("--from is after --to; exchange them.")
    if len(description) > MAX_DESCRIPTION or "\\" in description or not _printable(description):
        raise ConfigError(
            f"--description is longer than {MAX_DESCRIPTION} characters or holds a backslash or a "
            "control character; shorten it with *."
        )
    return StudyQuery(
        first_day="" if first is None else f"{first:%Y%m%d}",
        last_day="" if last is None else f"{last:%Y%m%d}",
        modality=modality,
        description=description,
    )


def _printable(text: str) -> bool:
    return not text or text.isprintable()


def matches(study: Study, query: StudyQuery) -> bool:
    """Return whether a study is what was asked for, as far as the archive says.

    Archives are free to ignore keys they do not know, and some answer with everything.
    """
    if study.day and DAY.fullmatch(study.day):
        if query.first_day and study.day < query.first_day:
            return False
        if query.last_day and study.day > query.last_day:
            return False
    if query.modality and study.modalities and query.modality not in study.modalities:
        return False
    if query.accession and study.accession and study.accession != query.accession:
        return False
    return not (query.description and study.description) or _like(
        query.description, study.description
    )


def _like(pattern: str, text: str) -> bool:
    # A bracket means itself in DICOM.
    return fnmatchcase(text.casefold(), pattern.casefold().replace("[", "[[]"))


def unique(studies: Iterable[Study]) -> list[str]:
    """Return the UIDs, each once, in the archive's order."""
    return list(dict.fromkeys(study.uid for study in studies))
