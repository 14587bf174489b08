"""Which pulse sequence made a set of images: from its tags, and from words only where they help.

The tags are looked at in the order in which they mislead least: what the image type says, inversion
times, how the frames of one plane follow each other in time, then repetition time and flip angle.
Words come last. They decide where the tags leave it open, and where they name something that looks
like a cine by its tags (the magnitude of a flow measurement, a tagged cine); otherwise a word that
contradicts lowers the confidence and changes nothing.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from client.intake.frame import Frame
from client.intake.views import Guess, body_view
from protocol.series import SEQUENCES

__all__ = [
    "OTHER_MAPS",
    "PHASE_TYPES",
    "Timing",
    "sequence_of",
    "text_sequence",
    "text_view",
    "timing_of",
]

PHASE_TYPES = {"P", "PHASE MAP", "VELOCITY", "PHASE"}
T1_MAPS = {"T1 MAP", "T1_MAP", "T1MAP"}
OTHER_MAPS = {"T2 MAP", "T2_MAP", "T2_STAR MAP", "ECV MAP", "R2 MAP", "R2_STAR MAP"}
SIGNED = {"PSIR", "R", "REAL"}
MIN_DYNAMICS = 8
MIN_INVERSIONS, MAX_INVERSIONS = 3, 14
MIN_PHASES = 8
# Cines are made at 35 to 80 degrees where balanced, flow and tagging at 30 or less.
CINE_FLIP_DEG = 35.0
BEAT_S = 0.3
SURVEY_COSINE = 0.97

WORDS: Mapping[str, re.Pattern[str]] = {
    "localizer": re.compile(
        r"(?<!ti)(?<!ti[ _-])scout|locali[sz]er|(^|[ _-])loc([ _]|$)|survey|3[ _-]?plane|planning"
    ),
    "t1_map": re.compile(r"t1[ _-]?map"),
    "t1_weighted": re.compile(r"molli|sasha|t1w"),
    "perfusion": re.compile(r"perf|first[ _-]?pass"),
    "flow": re.compile(r"flow|velo|venc|phase[ _-]?contrast|(^|[ _])pc([ _-]|$)|(^|[ _])qf"),
    "other": re.compile(
        r"t2[ _-]?map|t2\*|t2star|tagg|(^|[ _])grid|ti[ _-]?scout|look[ _-]?l|ecv|haste|stir"
    ),
    "lge_psir": re.compile(r"psir(?!.*mag)"),
    "lge_magnitude": re.compile(
        r"lge|(^|[ _])de([ _]|$)|delay|late|viab|mde|enhanc|psir.*mag|mag.*psir"
    ),
    "cine": re.compile(r"cine|trufi|fiesta|btfe|b-tfe|bffe|ssfp"),
}
VIEW_WORDS: Mapping[str, re.Pattern[str]] = {
    "rvot": re.compile(r"rvot"),
    "lvot": re.compile(r"lvot"),
    "2ch": re.compile(r"2[ _-]?ch|(^|[ _])vla([ _]|$)|2cv"),
    "3ch": re.compile(r"3[ _-]?ch|3cv|aplax"),
    "4ch": re.compile(r"4[ _-]?ch|(^|[ _])hla([ _]|$)|4cv"),
    "sax": re.compile(r"(^|[ _])sax?([ _]|$)|sax|short[ _-]?ax"),
    "axial": re.compile(r"axial|(^|[ _])(ax|tra)([ _]|$)|transvers"),
}
# What looks like something else by its tags: a word that names it decides.
SPECIFIC = {
    "cine": {"flow", "perfusion", "localizer", "other", "t1_map", "t1_weighted"},
    "other": set(SEQUENCES) - {"other", "cine"},
    "lge_magnitude": {"lge_psir", "t1_map", "t1_weighted", "localizer", "other", "perfusion"},
    "t1_weighted": {"t1_map", "other"},
}


@dataclass(frozen=True)
class Timing:
    """How the frames of one plane follow each other.

    Attributes
    ----------
    depth : int
        Most frames of one plane.
    triggers, inversions : int
        Most distinct delays after the R wave, and inversion times, at one plane.
    beats : int
        How many of the fullest plane's frames began in a heart beat of their own.
    """

    depth: int
    triggers: int
    inversions: int
    beats: int


def timing_of(groups: Sequence[Sequence[Frame]]) -> Timing:
    """Describe the frames of one part, given by plane."""
    fullest = max(groups, key=len)
    acquired = sorted(f.tags.acquired_s for f in fullest if math.isfinite(f.tags.acquired_s))
    beats = 1 + int((np.diff(acquired) > BEAT_S).sum()) if len(acquired) > 1 else 1
    return Timing(
        depth=len(fullest),
        triggers=max(
            len({round(f.trigger_ms) for f in group if math.isfinite(f.trigger_ms)})
            for group in groups
        ),
        inversions=max(len({round(f.inversion_ms) for f in group}) for group in groups),
        beats=beats,
    )


def text_sequence(text: str) -> str | None:
    """Return the sequence that the free text names, if it names one."""
    return next((label for label, words in WORDS.items() if words.search(text)), None)


def text_view(text: str) -> str | None:
    """Return the view that the free text names, if it names one."""
    return next((label for label, words in VIEW_WORDS.items() if words.search(text)), None)


def sequence_of(groups: Sequence[Sequence[Frame]], *, survey: bool, has_phase: bool) -> Guess:
    """Return the sequence of one part.

    Parameters
    ----------
    groups : sequence of sequence of Frame
        Frames of one kind of one series, by plane.
    survey : bool
        Whether the series holds ungated single images in several body planes.
    has_phase : bool
        Whether velocity images of the same planes lie in the study.
    """
    first = groups[0][0]
    guess = _by_tags(first, timing_of(groups), survey, has_phase)
    return _with_words(guess, text_sequence(first.text))


def _by_tags(first: Frame, timing: Timing, survey: bool, has_phase: bool) -> Guess:
    words = set(first.image_type)
    inverted = first.inversion_recovery or first.inversion_ms > 0
    if "LOCALIZER" in words:
        return Guess("localizer", 1.0, "the image type says localizer")
    if words & T1_MAPS:
        return Guess("t1_map", 1.0, "the image type says T1 map")
    if words & OTHER_MAPS:
        return Guess("other", 0.9, "the image type says another map")
    if "SE" in first.tags.scanning:
        return _spin_echo(first, inverted)
    if inverted or "PSIR" in words:
        return _inverted(words, timing)
    if words & PHASE_TYPES:
        if timing.depth > 1:
            return Guess("flow", 0.95, "phase images over the heart beat")
        return Guess("other", 0.75, "a single phase image")
    if timing.depth >= MIN_DYNAMICS and timing.triggers <= max(2, timing.depth // 5):
        agent = " after contrast agent" if first.tags.contrast_agent else ""
        if timing.beats > timing.depth // 2 or agent:
            return Guess("perfusion", 0.95, f"one image a beat at one delay{agent}")
        return Guess("perfusion", 0.65, "many images of one plane without delays")
    if timing.depth > 1:
        return _moving(first, timing, has_phase)
    return _still(first, survey)


def _spin_echo(first: Frame, inverted: bool) -> Guess:
    if inverted:
        return Guess("other", 0.85, "spin echo with inversion: STIR")
    # A gated echo train repeats every beat (T1) or every second or third (T2).
    short = first.tags.echo_ms < 40
    if short and not first.tags.repetition_ms > 1200:
        return Guess("t1_weighted", 0.75, "spin echo with short echo and repetition times")
    return Guess("other", 0.8, "spin echo")


def _inverted(words: set[str], timing: Timing) -> Guess:
    if timing.inversions > MAX_INVERSIONS:
        return Guess("other", 0.85, "an inversion-time scout")
    if timing.inversions >= MIN_INVERSIONS:
        return Guess("t1_weighted", 0.95, f"{timing.inversions} inversion times of one plane")
    if timing.triggers >= MIN_PHASES:
        return Guess("other", 0.7, "inversion recovery over the heart beat")
    if words & (SIGNED | PHASE_TYPES):
        return Guess("lge_psir", 0.95, "inversion recovery with its sign")
    return Guess("lge_magnitude", 0.9, "inversion recovery, magnitude")


def _moving(first: Frame, timing: Timing, has_phase: bool) -> Guess:
    tags = first.tags
    if has_phase:
        return Guess("flow", 0.9, "magnitude of the planes that have velocity images")
    phases = max(timing.depth, tags.phases if math.isfinite(tags.phases) else 0)
    sampled = 1.0 if phases >= MIN_PHASES else 0.85
    if "SS" in tags.variant or tags.flip_deg >= CINE_FLIP_DEG:
        return Guess("cine", sampled, f"{timing.depth} phases, steady state")
    if math.isfinite(tags.flip_deg):
        return Guess("cine", 0.75 * sampled, f"{timing.depth} phases at a low flip angle")
    return Guess("cine", 0.85 * sampled, f"{timing.depth} phases of one plane")


def _still(first: Frame, survey: bool) -> Guess:
    gated = (math.isfinite(first.trigger_ms) and first.trigger_ms > 0) or first.tags.phases > 1
    if survey:
        return Guess("localizer", 0.9, "ungated single images in several body planes")
    along_body = body_view(first.normal, SURVEY_COSINE) is not None
    if not gated and along_body and first.tags.repetition_ms < 20:
        return Guess("localizer", 0.65, "ungated single images along a body plane")
    return Guess("other", 0.7, "single images without inversion")


def _with_words(guess: Guess, said: str | None) -> Guess:
    if said is None:
        return guess
    if said == guess.label:
        return Guess(said, max(guess.confidence, 0.95), f"{guess.reason}; the text agrees")
    if said in SPECIFIC.get(guess.label, ()):
        return Guess(said, 0.85, f"the text says {said}; by its tags {guess.label}")
    if guess.label.startswith("lge") and said.startswith("lge"):
        return guess
    if guess.confidence < 0.7:
        return Guess(said, 0.8, f"the text says {said}; {guess.reason}")
    certain = min(guess.confidence, 0.75)
    return Guess(guess.label, certain, f"{guess.reason}; the text says {said}")
