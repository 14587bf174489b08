"""Which frames of a study are the short-axis cine, which the LGE, and why the rest is neither.

Geometry decides first (parallel planes), tags second (inversion recovery, localizer), words last.
How a scanner cuts acquisitions into series says nothing: one series a slice and one series in all
are both common, and a localizer may even share its series number with the cine.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from client.intake.frame import Frame

__all__ = ["MIN_PLANES", "PLANE_TOLERANCE_MM", "Sorted", "planes", "sort_study"]

# The usual rule is six or more parallel planes. Five are accepted, because five cover a small heart
# at 10 mm.
MIN_PLANES = 5
MIN_LGE_PLANES = 3
PLANE_TOLERANCE_MM = 0.5
PARALLEL_COSINE = 0.999
# A stack within 8 degrees of a body plane is an axial, coronal or sagittal survey.
BODY_PLANE_COSINE = 0.990

LOCALIZER = re.compile(r"scout|locali[sz]er|(^|[ _])loc([ _]|$)|survey|3[ _-]?plane|planning")
NOT_ANATOMY = re.compile(
    r"t1[ _-]?map|t2[ _-]?map|t2\*|molli|shmolli|perf|flow|velo|tagg|grid|ti[ _-]?scout|look[ _-]?l"
)
LONG_AXIS = re.compile(r"[234][ _-]?ch|vla|hla|lvot|rvot|3cv|\blax\b|long[ _-]?ax|lax")
LATE = re.compile(r"lge|(^|[ _])de([ _]|$)|delay|late|psir|viab|mde|enhanc")
PHASE_TYPES = {"P", "PHASE MAP", "VELOCITY", "T1 MAP", "T2 MAP", "T2_STAR MAP", "PHASE"}


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


def planes(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group parallel frames by their position along the normal, in increasing position.

    Positions closer than 0.5 mm are one plane. SliceLocation and InstanceNumber are not looked at:
    the former is wrong by a third on real scanners, the latter random on others.
    """
    normal = frames[0].normal
    located = sorted(
        ((float(normal @ frame.centre_mm), index) for index, frame in enumerate(frames)),
    )
    groups: list[list[Frame]] = []
    previous = -np.inf
    for position, index in located:
        if position - previous > PLANE_TOLERANCE_MM:
            groups.append([])
        groups[-1].append(frames[index])
        previous = position
    return groups


def _nature(frame: Frame) -> str:
    """Sort a frame by tags, then words: localizer, derived, late or anatomy."""
    words = set(frame.image_type)
    if "LOCALIZER" in words or LOCALIZER.search(frame.text):
        return "localizer"
    # Scanners name both reconstructions after the sequence; the magnitude says so.
    psir = "PSIR" in words or ("psir" in frame.text and "mag" not in frame.text)
    if NOT_ANATOMY.search(frame.text) or (words & PHASE_TYPES and not psir):
        return "derived"
    if frame.inversion_recovery or frame.inversion_ms > 0 or psir or LATE.search(frame.text):
        return "late psir" if psir or "R" in words else "late"
    return "anatomy"


def _families(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Split frames of one nature into sets of one orientation and one grid."""
    families: list[tuple[Frame, np.ndarray, list[Frame]]] = []
    for frame in frames:
        axes = np.array(frame.orientation)
        grid = (frame.rows, frame.cols)
        for first, first_axes, members in families:
            row_cosine, column_cosine = axes[:3] @ first_axes[:3], axes[3:] @ first_axes[3:]
            if (
                min(row_cosine, column_cosine) > PARALLEL_COSINE
                and grid == (first.rows, first.cols)
                and np.allclose(frame.pixel_spacing_mm, first.pixel_spacing_mm, rtol=0.01)
            ):
                members.append(frame)
                break
        else:
            families.append((frame, axes, [frame]))
    return [members for _, _, members in families]


def _series(frames: Iterable[Frame]) -> int:
    return len({frame.series_uid for frame in frames})


def _is_long_axis(frames: Sequence[Frame]) -> bool:
    return sum(bool(LONG_AXIS.search(f.text)) for f in frames) * 2 > len(frames)


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
    families: list[list[Frame]], refused: Counter[str]
) -> tuple[list[Frame], list[list[Frame]]]:
    best: list[Frame] = []
    others = []
    for family in families:
        groups = planes(family)
        # Half the planes must move: one stray single-phase plane must not unmake a cine.
        moving = [group for group in groups if len(group) > 1]
        axis = float(np.abs(family[0].normal).max())
        if len(moving) * 2 < len(groups):
            refused["single-phase, not late enhancement"] += _series(family)
        elif _is_long_axis(family):
            refused["long-axis view"] += _series(family)
        elif len(groups) < MIN_PLANES:
            refused[f"cine with fewer than {MIN_PLANES} parallel planes"] += _series(family)
        elif axis > BODY_PLANE_COSINE:
            refused["cine along a body plane"] += _series(family)
        else:
            others.append(family)
            if len(groups) > (len(planes(best)) if best else 0):
                best = family
    return best, [family for family in others if family is not best]


def sort_study(frames: Sequence[Frame]) -> Sorted:
    """Find the short-axis cine and late-enhancement frames of one study."""
    refused: Counter[str] = Counter()
    natures: dict[str, list[Frame]] = {}
    for frame in frames:
        natures.setdefault(_nature(frame), []).append(frame)
    if "localizer" in natures:
        refused["localizer"] += _series(natures["localizer"])
    if "derived" in natures:
        refused["map, phase, perfusion or other derived image"] += _series(natures["derived"])
    cine, spare = _short_axis_cine(_families(natures.get("anatomy", [])), refused)
    if spare:
        refused["a fuller short-axis cine is used"] += sum(_series(family) for family in spare)
    if not cine:
        late = natures.get("late", []) + natures.get("late psir", [])
        if late:
            refused["late enhancement without a short-axis cine"] += _series(late)
        return Sorted((), (), refused)
    cine_frames = [f for group in _drop_repeats(planes(cine), refused) for f in group]
    lge_frames = _short_axis_lge(natures, cine[0], refused)
    return Sorted(tuple(cine_frames), tuple(lge_frames), refused)


def _short_axis_lge(
    natures: dict[str, list[Frame]], cine: Frame, refused: Counter[str]
) -> list[Frame]:
    # Phase-sensitive images keep the sign, so scar stays bright when the inversion time was missed.
    candidates: list[list[Frame]] = []
    for nature in ("late psir", "late"):
        for family in _families(natures.get(nature, [])):
            groups = planes(family)
            if abs(float(family[0].normal @ cine.normal)) < 0.95 or _is_long_axis(family):
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
