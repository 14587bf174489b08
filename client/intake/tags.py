"""What a file says of its pulse sequence in numbers and codes, without a word of free text."""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["NO_TAGS", "Tags", "read_tags"]


@dataclass(frozen=True, slots=True)
class Tags:
    """What a file says of the pulse sequence in numbers and codes; NaN or empty where it is silent.

    Attributes
    ----------
    scanning : tuple of str
        ScanningSequence: SE, IR, GR, EP, RM.
    variant : tuple of str
        SequenceVariant, e.g. SS (steady state), SK, SP, MP.
    repetition_ms, echo_ms, flip_deg : float
        Repetition time (of a segment, with some vendors), echo time, flip angle.
    phases : float
        CardiacNumberOfImages: how many phases of the cycle were acquired.
    rr_ms : float
        NominalInterval: length of a heart beat.
    acquired_s : float
        AcquisitionTime as seconds of the day.
    contrast_agent : bool
        Whether a contrast agent is named.
    """

    scanning: tuple[str, ...] = ()
    variant: tuple[str, ...] = ()
    repetition_ms: float = math.nan
    echo_ms: float = math.nan
    flip_deg: float = math.nan
    phases: float = math.nan
    rr_ms: float = math.nan
    acquired_s: float = math.nan
    contrast_agent: bool = False


NO_TAGS = Tags()


def read_tags(words: Callable[[str], tuple[str, ...]]) -> Tags:
    """Return the tags of one file; a value that is no number is left out, not refused.

    Parameters
    ----------
    words : callable
        Gives the values of an element by its keyword, as text.
    """

    def number(keyword: str) -> float:
        try:
            return float(words(keyword)[0])
        except (IndexError, ValueError):
            return math.nan

    return Tags(
        scanning=words("ScanningSequence"),
        variant=words("SequenceVariant"),
        repetition_ms=number("RepetitionTime"),
        echo_ms=number("EchoTime"),
        flip_deg=number("FlipAngle"),
        phases=number("CardiacNumberOfImages"),
        rr_ms=number("NominalInterval"),
        acquired_s=_seconds(words("AcquisitionTime")),
        contrast_agent=any(words("ContrastBolusAgent")),
    )


def _seconds(time: tuple[str, ...]) -> float:
    """Return a DICOM time (HHMMSS.FFFFFF) as seconds of the day; NaN where it is none."""
    digits = "".join(time[:1]).replace(":", "")
    try:
        return 3600.0 * int(digits[:2]) + 60.0 * int(digits[2:4]) + float(digits[4:])
    except ValueError:
        return math.nan
