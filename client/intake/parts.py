"""Every series of a study, cut into parts of one kind, each with its sequence, view and confidence.

How a scanner cuts acquisitions into series says nothing: one series a slice and one series in all
are both common, two reconstructions or three long-axis views may share a series, and a localizer
may share its number with the cine. So a series is cut where orientation, grid or kind of image
change; whatever lies parallel in the study is looked at together to find the heart's axes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from client.intake.frame import Frame
from client.intake.overruling import Override, overrule
from client.intake.planes import PARALLEL_COSINE, alike, planes
from client.intake.sequences import PHASE_TYPES, sequence_of, text_view
from client.intake.views import (
    LONG_AXIS_VIEWS,
    Axes,
    Guess,
    body_view,
    counted_from,
    heart_axes,
    may_be_short_axis,
    view_of,
)

__all__ = ["KINDS", "UNSURE_BELOW", "Overrides", "Part", "sort_parts"]

# Below it a part is unsure: a network or a person decides.
UNSURE_BELOW = 0.7
MIN_REFERENCE_PLANES = 3
FULL_REFERENCE_PLANES = 5
SURVEY_COSINE = 0.97
# Words of the image type that tell two reconstructions of one acquisition apart.
KINDS = {"P", "PHASE", "PHASE MAP", "VELOCITY", "R", "REAL", "I", "PSIR", "LOCALIZER", "T1 MAP",
         "T1_MAP", "T1MAP", "T2 MAP", "T2_MAP", "T2_STAR MAP", "ECV MAP"}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A series, or the part of a mixed series that is of one kind.

    Attributes
    ----------
    series_uid : str
        Of the series; never leaves the hospital, and is shown as its pseudonym only.
    number : int
        Which part of the series, from 1; 0 where the series is not mixed.
    frames : tuple of Frame
        Parallel planes of one grid.
    sequence, view : str
        Of `protocol.series.SEQUENCES` and `VIEWS`.
    confidence : float
        In [0, 1]; of the less sure of the two.
    reason : str
        Why, in a few words.
    by : str
        Who decided: ``rule``, ``person`` or ``network``.
    ignored : bool
        Whether a person has set the part aside.
    """

    series_uid: str
    number: int
    frames: tuple[Frame, ...]
    sequence: str
    view: str
    confidence: float
    reason: str
    by: str = "rule"
    ignored: bool = False


@dataclass(frozen=True)
class _Cut:
    """A part before it is sorted; ``planes`` are its frames by plane."""

    series_uid: str
    number: int
    frames: list[Frame]
    planes: list[list[Frame]]

    @property
    def depth(self) -> int:
        return max(map(len, self.planes))

    @property
    def normal(self) -> np.ndarray:
        return self.frames[0].normal

    @property
    def centre_mm(self) -> np.ndarray:
        return np.mean([group[0].centre_mm for group in self.planes], axis=0)


Overrides = Mapping[tuple[str, int], Override]


def _place(frame: Frame) -> tuple[str, tuple[float, ...], str, int]:
    return frame.series_uid, frame.orientation, frame.sop_uid, frame.frame_index


def _cut(frames: Iterable[Frame]) -> list[_Cut]:
    """Cut every series where kind, orientation or grid change; order and numbers are stable."""
    by_series: dict[str, dict[tuple[str, ...], list[list[Frame]]]] = {}
    for frame in sorted(frames, key=_place):
        kind = tuple(sorted(KINDS & set(frame.image_type)))
        families = by_series.setdefault(frame.series_uid, {}).setdefault(kind, [])
        for family in families:
            if alike(frame, family[0]):
                family.append(frame)
                break
        else:
            families.append([frame])
    cuts = []
    for uid, kinds in sorted(by_series.items()):
        parts = [family for kind in sorted(kinds) for family in kinds[kind]]
        for number, part in enumerate(parts, start=1):
            cuts.append(_Cut(uid, number if len(parts) > 1 else 0, part, planes(part)))
    return cuts


def _surveys(cuts: Sequence[_Cut]) -> set[str]:
    """Return the series of ungated single images in two or three body planes."""
    turned: dict[str, set[str]] = {}
    for cut in cuts:
        first = cut.frames[0]
        body = body_view(cut.normal, SURVEY_COSINE)
        if body and cut.depth == 1 and not first.trigger_ms > 0 and not first.tags.phases > 1:
            turned.setdefault(cut.series_uid, set()).add(body)
    return {uid for uid, bodies in turned.items() if len(bodies) > 1}


def _families(cuts: Sequence[_Cut]) -> list[list[Frame]]:
    """Join parallel parts over series."""
    families: list[list[Frame]] = []
    for cut in cuts:
        for family in families:
            if alike(cut.frames[0], family[0]):
                family.extend(cut.frames)
                break
        else:
            families.append(list(cut.frames))
    return families


def _axes(cuts: Sequence[_Cut], told: Sequence[_Cut]) -> Axes:
    """Return the heart's axes from the fullest stack that cuts a heart across.

    ``told`` are parts a person calls short axis; if there are any, only they count.
    """
    stacks = []
    for family in _families(told or cuts):
        if not told and not may_be_short_axis(family[0].normal):
            continue
        groups = planes(family)
        moving = sum(len(group) > 1 for group in groups) * 2 >= len(groups)
        stacks.append((len(groups) >= MIN_REFERENCE_PLANES, moving, len(groups), family))
    everything = np.mean([cut.centre_mm for cut in cuts], axis=0)
    if not stacks:
        return heart_axes(None, everything, 0.6)
    _, _, count, family = max(stacks, key=lambda stack: stack[:3])
    certain = 1.0 if told or count >= FULL_REFERENCE_PLANES else 0.9
    if count < MIN_REFERENCE_PLANES:
        certain = 0.65
    centre = np.mean([frame.centre_mm for frame in family], axis=0)
    return heart_axes(family[0].normal, centre, certain)


def _views(cuts: Sequence[_Cut], axes: Axes) -> list[Guess]:
    def one(cut: _Cut, use: Axes) -> Guess:
        return view_of(cut.normal, cut.centre_mm, use, moving=cut.depth > 1)

    first = [one(cut, axes) for cut in cuts]
    two_chamber = [
        (cut.normal, cut.centre_mm)
        for cut, guess in zip(cuts, first, strict=True)
        if guess.label == "2ch"
    ]
    counted = counted_from(two_chamber, axes)
    return [one(cut, counted) for cut in cuts]


def _with_words(guess: Guess, text: str) -> Guess:
    """Let the text confirm a view, decide where geometry leaves it open, or else only warn."""
    said = text_view(text)
    if said is None or (said == "2ch" and guess.label == "2ch_rv"):
        # Words seldom tell which side a two-chamber view is of.
        return guess
    if said == guess.label or (said == "lvot" and guess.label == "3ch"):
        # The three-chamber view shows the outflow tract, and many call it by that.
        return Guess(guess.label, max(guess.confidence, 0.95), f"{guess.reason}; the text agrees")
    if guess.confidence < UNSURE_BELOW and said in (*LONG_AXIS_VIEWS, "sax"):
        return Guess(said, 0.8, f"the text says {said}; {guess.reason}")
    certain = min(guess.confidence, 0.75)
    return Guess(guess.label, certain, f"{guess.reason}; the text says {said}")


def _has_phase(cuts: Sequence[_Cut], cut: _Cut) -> bool:
    """Whether velocity images of the same plane lie in the study."""
    for other in cuts:
        first = other.frames[0]
        velocity = PHASE_TYPES & set(first.image_type) and not first.inversion_recovery
        if velocity and other.depth > 1 and abs(first.normal @ cut.normal) > PARALLEL_COSINE:
            aside_mm = abs(float((other.centre_mm - cut.centre_mm) @ cut.normal))
            if aside_mm < 1.0 and abs(other.depth - cut.depth) * 5 <= cut.depth:
                return True
    return False


def sort_parts(frames: Iterable[Frame], overrides: Overrides | None = None) -> list[Part]:
    """Sort every series of one study.

    Parameters
    ----------
    frames : iterable of Frame
        All frames of the study, in any order.
    overrides : mapping, optional
        What a person decided, by (series UID, part number); number 0 stands for all parts.

    Returns
    -------
    list of Part
        By series UID and part number; independent of the order of the frames.
    """
    cuts = _cut(frames)
    if not cuts:
        return []
    given = overrides or {}
    said = [given.get((cut.series_uid, cut.number), given.get((cut.series_uid, 0))) for cut in cuts]
    told = [cut for cut, word in zip(cuts, said, strict=True) if word and word.view == "sax"]
    surveys = _surveys(cuts)
    parts = []
    for cut, by_place, word in zip(cuts, _views(cuts, _axes(cuts, told)), said, strict=True):
        sequence = sequence_of(
            cut.planes, survey=cut.series_uid in surveys, has_phase=_has_phase(cuts, cut)
        )
        view = _with_words(by_place, cut.frames[0].text)
        part = Part(
            cut.series_uid,
            cut.number,
            tuple(cut.frames),
            sequence.label,
            view.label,
            round(min(sequence.confidence, view.confidence), 3),
            f"{sequence.reason}; {view.reason}",
        )
        parts.append(part if word is None else _overruled(part, word))
    return parts


def _overruled(part: Part, override: Override) -> Part:
    sequence, view = overrule(override, part.sequence, part.view)
    return replace(
        part,
        sequence=sequence,
        view=view,
        confidence=1.0,
        reason="set by a person",
        by="person",
        ignored=override.ignore,
    )
