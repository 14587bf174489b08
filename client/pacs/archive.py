"""What both protocols have in common: studies and images as an archive lists them."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from client.pacs.receiver import Receiver

__all__ = ["Archive", "Image", "Series", "Study", "StudyQuery", "Wanted", "is_uid"]

# Real archives hold UIDs with leading zeros; what matters here is that one is nothing but a UID.
UID = re.compile(r"[0-9]+(\.[0-9]+)+")
MAX_UID = 64


def is_uid(text: str) -> bool:
    """Return whether a text is a UID: numbers and dots, 64 characters at most."""
    return len(text) <= MAX_UID and UID.fullmatch(text) is not None


@dataclass(frozen=True)
class StudyQuery:
    """What to ask an archive for; an empty text matches everything.

    Attributes
    ----------
    first_day, last_day : str
        YYYYMMDD, inclusive.
    modality : str
        Of any series of the study.
    description : str
        Of the study, with the wildcards ``*`` and ``?``.
    accession : str
        Accession number.
    """

    first_day: str = ""
    last_day: str = ""
    modality: str = ""
    description: str = ""
    accession: str = ""


@dataclass(frozen=True)
class Study:
    """A study as the archive describes it; texts are empty where it says nothing."""

    uid: str
    day: str
    modalities: tuple[str, ...]
    description: str
    accession: str


@dataclass(frozen=True)
class Image:
    """One instance."""

    uid: str
    sop_class: str


@dataclass(frozen=True)
class Series:
    """A series, what the archive announces for it, and the images it lists (maybe fewer)."""

    uid: str
    modality: str
    announced: int
    images: tuple[Image, ...]


@dataclass(frozen=True)
class Wanted:
    """The images of one series that are to come; ``whole`` if it is the series as listed."""

    series: str
    images: tuple[Image, ...]
    whole: bool


class Archive(AbstractContextManager["Archive"], Protocol):
    """An image archive, by either protocol.

    Every method raises `protocol.errors.TransferError` if the archive does not answer as it should,
    and `client.pacs.watch.Stop` if a bound is met.
    """

    def find(self, query: StudyQuery) -> list[Study]:
        """Return the studies that the archive says match."""

    def series(self, study: str) -> list[Series]:
        """Return the series of the site's modalities, with their images."""

    def retrieve(self, study: str, wanted: Sequence[Wanted], to: Receiver) -> None:
        """Have images sent to the receiver."""
