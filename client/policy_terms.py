"""The sections of ``policy.yaml`` beside ``privacy``: what a hospital allows a study, and when."""

import re
from datetime import datetime, time
from typing import Annotated, Literal

from pydantic import Field, field_validator

from protocol.yaml_files import Frozen

__all__ = ["DeviceTerms", "Minimum", "ReportTerms", "StudyTerms", "Window", "WorkTerms"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


class StudyTerms(Frozen):
    """Which studies may run at all; ``None`` allows everything of a kind.

    Attributes
    ----------
    stages, networks, strategies : tuple of str or None
        The names that may stand in a study.
    approved : tuple of str
        Hashes of studies that need no further approval.
    """

    stages: tuple[Name, ...] | None = None
    networks: tuple[Name, ...] | None = None
    strategies: tuple[Name, ...] | None = None
    approved: tuple[Hash, ...] = ()


class Minimum(Frozen):
    """How many patients, and events among them, a hospital must have to answer a study."""

    patients: int = Field(1, ge=1)
    events: int = Field(0, ge=0)


class ReportTerms(Frozen):
    """What the hospital tells in counts.

    Attributes
    ----------
    min_cell : int
        Counts of 1 to ``min_cell - 1`` patients are withheld; 5 at least. The larger of this and
        ``min_cell`` of ``site.yaml`` holds.
    """

    min_cell: int = Field(5, ge=5)


class Window(Frozen):
    """Hours of some days, local time; past midnight where ``until`` is not after ``begin``.

    Attributes
    ----------
    days : tuple of {"mon", ..., "sun"}
        The days on which the window opens.
    begin, until : str
        ``"HH:MM"``; equal for a whole day.
    """

    days: tuple[Day, ...] = DAYS
    begin: str = "00:00"
    until: str = "00:00"

    @field_validator("begin", "until")
    @classmethod
    def _clock(cls, text: str) -> str:
        if not CLOCK.fullmatch(text):
            raise ValueError('a time of day is not "HH:MM", from "00:00" to "23:59"')
        return text

    @field_validator("days")
    @classmethod
    def _some(cls, days: tuple[Day, ...]) -> tuple[Day, ...]:
        if not days:
            raise ValueError("a window has no day; name some of mon to sun")
        return days

    def holds(self, moment: datetime) -> bool:
        """Say whether a local time lies in the window; its end does not."""
        begin, until, now = time.fromisoformat(self.begin), time.fromisoformat(self.until), moment
        today, yesterday = DAYS[now.weekday()], DAYS[(now.weekday() - 1) % 7]
        clock = now.time().replace(tzinfo=None)
        if begin < until:
            return today in self.days and begin <= clock < until
        return (today in self.days and clock >= begin) or (yesterday in self.days and clock < until)


class DeviceTerms(Frozen):
    """What a study may take of the machine.

    Attributes
    ----------
    threads : int or None
        At most so many threads; the smaller of this and ``threads`` of ``site.yaml`` holds.
    gpu_memory_share : float
        Of the GPU's memory, in (0, 1].
    """

    threads: int | None = Field(None, ge=1)
    gpu_memory_share: float = Field(1.0, gt=0, le=1)


class WorkTerms(Frozen):
    """How long a message may take, and which replies are kept for whoever asks again.

    Attributes
    ----------
    limit_s : float
        Seconds for one message; a study's own deadline may be shorter.
    kept_replies : int
        The newest so many of each study.
    kept_mb : float
        Of all studies together; 0 keeps none.
    """

    limit_s: float = Field(12 * 3600.0, gt=0, le=7 * 24 * 3600.0)
    kept_replies: int = Field(8, ge=0, le=10_000)
    kept_mb: float = Field(4096.0, ge=0)
