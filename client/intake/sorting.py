"""Which frames of a study are the short-axis cine, which the LGE, and why the rest is neither.

Geometry decides first (parallel planes), tags second (inversion recovery, localizer), words last.
How a scanner cuts acquisitions into series says nothing: one series a slice and one series in all
are both common, and a localizer may even share its series number with the cine.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from client.intake.frame import Frame
from client.intake.parts import Overrides, Part, sort_parts
from client.intake.planes import alike, planes
from client.intake.sequences import OTHER_MAPS, PHASE_TYPES, text_sequence
from client.intake.views import LONG_AXIS_VIEWS

__all__ = ["MIN_PLANES", "Sorted", "choose", "sort_study"]

# The usual rule is six or more parallel planes. Five are accepted, because five cover a small heart
# at 10 mm.
MIN_PLANES = 5
MIN_LGE_PLANES = 3
BODY_VIEWS = ("axial", "coronal", "sagittal")
IMAGE_KIND = {
    "cine": "anatomy",
    "lge_psir": "late psir",
    "lge_magnitude": "late",
    "localizer": "localizer",
}
Views = dict[int, str]


@dataclass(frozen=True)
class Sorted:
    """What one study holds.

    Attributes
    ----------
    cine : tuple of Frame
        All frames of the short-axis cine, unordered; empty if there is none.
    lge : tuple of Frame
        All frames of the short-axis late enhancement, one a plane; empty if there is none.
    refused : Counter
        Series by the reason why they are neither.
    """

    cine: tuple[Frame, ...]
    lge: tuple[Frame, ...]
    refused: Counter[str]


def _nature(part: Part) -> str:
    """What a part may serve for: localizer, derived, late (psir) or anatomy."""
    first = part.frames[0]
    named = (
        set(first.image_type) & (OTHER_MAPS | PHASE_TYPES) or text_sequence(first.text) == "other"
    )
    still = len(planes(part.frames)) == len(part.frames)
    if part.sequence == "other" and still and part.by == "rule" and not named:
        return "anatomy"
    return IMAGE_KIND.get(part.sequence, "derived")


def _families(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Split frames of one nature into sets of one orientation and one grid."""
    families: list[list[Frame]] = []
    for frame in frames:
        for family in families:
            if alike(frame, family[0]):
                family.append(frame)
                break
        else:
            families.append([frame])
    return families


def _series(frames: Iterable[Frame]) -> int:
    return len({frame.series_uid for frame in frames})


def _mostly(frames: Sequence[Frame], views: Views, among: Sequence[str]) -> bool:
    return sum(views[id(frame)] in among for frame in frames) * 2 > len(frames)


def _drop_repeats(groups: list[list[Frame]], refused: Counter[str]) -> list[list[Frame]]:
    """Where a plane was acquired twice, keep the fuller series, or else the later one."""
    kept = []
    for group in groups:
        by_series: dict[str, list[Frame]] = {}
        for frame in group:
            by_series.setdefault(frame.series_uid, []).append(frame)
        ranked = sorted(
            by_series.values(), key=lambda g: (len(g), g[0].series_number, g[0].series_uid)
        )
        # One series per phase: every series has one frame of the plane; together they are the cine.
        split_by_phase = len(ranked) > 2 and len(ranked[-1]) == 1
        if not split_by_phase and len(ranked) > 1:
            refused["slice acquired again; the fuller or later series is used"] += len(ranked) - 1
            group = ranked[-1]
        kept.append(group)
    return kept


def _short_axis_cine(
    families: list[list[Frame]], views: Views, refused: Counter[str]
) -> tuple[list[Frame], list[list[Frame]]]:
    best: list[Frame] = []
    others = []
    for family in families:
        groups = planes(family)
        # Half the planes must move: one stray single-phase plane must not unmake a cine.
        moving = [group for group in groups if len(group) > 1]
        if len(moving) * 2 < len(groups):
            refused["single-phase, not late enhancement"] += _series(family)
        elif _mostly(family, views, LONG_AXIS_VIEWS):
            refused["long-axis view"] += _series(family)
        elif len(groups) < MIN_PLANES:
            refused[f"cine with fewer than {MIN_PLANES} parallel planes"] += _series(family)
        elif _mostly(family, views, BODY_VIEWS):
            refused["cine along a body plane"] += _series(family)
        elif not _mostly(family, views, ("sax",)):
            refused["cine in no view of the heart"] += _series(family)
        else:
            others.append(family)
            if len(groups) > (len(planes(best)) if best else 0):
                best = family
    return best, [family for family in others if family is not best]


def sort_study(frames: Sequence[Frame], overrides: Overrides | None = None) -> Sorted:
    """Find the short-axis cine and late-enhancement frames of one study.

    Parameters
    ----------
    overrides : mapping, optional
        What a person decided, by (series UID, part number).
    """
    return choose(sort_parts(frames, overrides))


def choose(parts: Sequence[Part]) -> Sorted:
    """Find the short-axis cine and late enhancement among the sorted parts of one study.

    Of two stacks that could both serve the one with more planes is taken, of two acquisitions of
    one plane the one with more frames, else the later one; a phase-sensitive late enhancement is
    taken before a magnitude of as many planes.
    """
    refused: Counter[str] = Counter()
    views: Views = {}
    natures: dict[str, list[Frame]] = {}
    ignored = {part.series_uid for part in parts if part.ignored}
    if ignored:
        refused["set aside by a person"] += len(ignored)
    for part in parts:
        if not part.ignored:
            natures.setdefault(_nature(part), []).extend(part.frames)
            views.update({id(frame): part.view for frame in part.frames})
    if "localizer" in natures:
        refused["localizer"] += _series(natures["localizer"])
    if "derived" in natures:
        refused["map, phase, perfusion or other derived image"] += _series(natures["derived"])
    cine, spare = _short_axis_cine(_families(natures.get("anatomy", [])), views, refused)
    if spare:
        refused["a fuller short-axis cine is used"] += sum(_series(family) for family in spare)
    if not cine:
        late = natures.get("late", []) + natures.get("late psir", [])
        if late:
            refused["late enhancement without a short-axis cine"] += _series(late)
        return Sorted((), (), refused)
    cine_frames = [f for group in _drop_repeats(planes(cine), refused) for f in group]
    lge_frames = _short_axis_lge(natures, cine[0], views, refused)
    return Sorted(tuple(cine_frames), tuple(lge_frames), refused)


def _short_axis_lge(
    natures: dict[str, list[Frame]], cine: Frame, views: Views, refused: Counter[str]
) -> list[Frame]:
    # Phase-sensitive images keep the sign, so scar stays bright when the inversion time was missed.
    candidates: list[list[Frame]] = []
    for nature in ("late psir", "late"):
        for family in _families(natures.get(nature, [])):
            groups = planes(family)
            aside = abs(float(family[0].normal @ cine.normal)) < 0.95
            if aside or _mostly(family, views, LONG_AXIS_VIEWS):
                refused["late enhancement, long-axis view"] += _series(family)
            elif len(groups) < MIN_LGE_PLANES or len(groups) * 2 <= max(map(len, groups)):
                refused["late enhancement with too few planes"] += _series(family)
            else:
                candidates.append(family)
    if not candidates:
        return []
    best = max(candidates, key=lambda family: len(planes(family)))
    for family in candidates:
        if family is not best:
            refused["another late-enhancement reconstruction is used"] += _series(family)
    return [group[-1] for group in _drop_repeats(planes(best), refused)]
