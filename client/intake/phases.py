"""Slices of many breath-holds at common phases of one heart beat.

Every slice has its own heart rate, trigger delay and, sometimes, number of frames. Its frames are
brought to phases ``trigger / RR`` of its own beat, in [0, 1), and compared cyclically.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.intake.frame import Frame
from protocol.errors import DataError

__all__ = ["Blend", "Cycle", "common_phases", "cycle_of", "cyclic_distance", "onto_phases"]

# A heart beats 30 to 240 times a minute.
MIN_RR_MS, MAX_RR_MS = 250.0, 2000.0
# Stated intervals are rounded, or the planner's. Where the frames fill the beat to this share, the
# beat is what they fill.
FILLS = 0.05
# Frames that are nearer than this share of the common step stay as they are: interpolation would
# blur more than it aligned.
TOLERANCE = 0.2
# Frames further apart than a fifth of a beat show different shapes; no mixture is one of a heart.
MAX_MIXED_GAP = 0.2
GAP = 1.5


@dataclass(frozen=True)
class Cycle:
    """One slice's frames in order of phase.

    Attributes
    ----------
    phases : ndarray
        float64 (n,), increasing, in [0, 1).
    gaps : bool
        Whether a frame seems to be missing between others: a step of 1.5 usual ones or more.
    """

    frames: tuple[Frame, ...]
    phases: np.ndarray
    gaps: bool


@dataclass(frozen=True)
class Blend:
    """How one slice shows T common phases: ``(1 - weight) frames[low] + weight frames[high]``.

    Attributes
    ----------
    low, high : ndarray of int, shape (T,)
        Indices into the slice's `Cycle`.
    weight : ndarray, shape (T,)
        In [0, 1); 0 where a frame stands as it is.
    """

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    @property
    def nearest(self) -> np.ndarray:
        """Index of the frame with the greater share, (T,)."""
        return np.where(self.weight > 0.5, self.high, self.low)

    @property
    def mixes(self) -> bool:
        return bool((self.weight > 0).any())


def cyclic_distance(one: np.ndarray | float, other: np.ndarray | float) -> np.ndarray:
    """Return the distance of two phases on a circle of length 1, in [0, .5]."""
    away = np.abs(np.asarray(one) - np.asarray(other)) % 1.0
    return np.minimum(away, 1.0 - away)


def cycle_of(group: Sequence[Frame]) -> Cycle:
    """Order one slice's frames by phase.

    Raises
    ------
    DataError
        If neither trigger times nor temporal indices tell them apart.
    """
    if len(group) == 1:
        return Cycle(tuple(group), np.zeros(1), gaps=False)
    times = np.array([frame.trigger_ms for frame in group])
    if np.isfinite(times).all() and len(np.unique(times)) == len(times):
        order = np.argsort(times)
        steps = np.diff(times[order])
        step = float(np.median(steps))
        phases = times[order] / _rr_ms([frame.rr_ms for frame in group], times, step) % 1.0
        gaps = bool((steps > GAP * step).any())
    else:
        ranks = np.array([frame.temporal_index for frame in group])
        if not np.isfinite(ranks).all() or len(np.unique(ranks)) < len(ranks):
            raise DataError("phases of a slice cannot be told apart by trigger time")
        order = np.argsort(ranks)
        phases, gaps = np.arange(len(group)) / len(group), False
    turn = np.argsort(phases, kind="stable")
    return Cycle(tuple(group[i] for i in order[turn]), phases[turn], gaps)


def _rr_ms(stated: Sequence[float], times: np.ndarray, step_ms: float) -> float:
    """Return the length of a slice's beat: as stated, unless its frames say otherwise."""
    known = [rr for rr in stated if MIN_RR_MS <= rr <= MAX_RR_MS]
    filled = len(times) * step_ms
    if not known:
        return filled
    rr = float(np.median(known))
    # Two frames of a beat, all that a reader exported, fill nothing.
    fills = len(times) > 2 and abs(filled - rr) <= FILLS * rr
    too_short = float(np.ptp(times)) >= rr
    return filled if fills or too_short else rr


def common_phases(cycles: Sequence[Cycle]) -> np.ndarray:
    """Return the phases of the slice that most others agree with, among those of usual length."""
    counts = Counter(len(cycle.frames) for cycle in cycles)
    usual = max(counts, key=lambda n: (counts[n], n))
    candidates = [cycle.phases for cycle in cycles if len(cycle.frames) == usual]
    agreeing = [sum(_rotation(p, other) is not None for p in candidates) for other in candidates]
    return candidates[int(np.argmax(agreeing))]


def _rotation(phases: np.ndarray, common: np.ndarray) -> np.ndarray | None:
    """Return which of a slice's frames is at each common phase; ``None`` if one is not."""
    if len(phases) != len(common):
        return None
    ranks = np.arange(len(common))
    # A first frame a hair before the R wave stands last.
    shift = int(cyclic_distance(phases, common[0]).argmin())
    order = (ranks + shift) % len(common)
    off = cyclic_distance(phases[order], common).max()
    return order if len(common) == 1 or off <= TOLERANCE / len(common) else None


def onto_phases(cycle: Cycle, common: np.ndarray) -> Blend:
    """Return how a slice shows the common phases.

    Frames at the common phases stand untouched. Otherwise linear interpolation, across the end of
    the beat too; where the neighbours are more than a fifth of a beat apart, the nearer one stands.
    """
    order = _rotation(cycle.phases, common)
    if order is not None:
        return Blend(order, order, np.zeros(len(common)))
    num = len(cycle.frames)
    high = np.searchsorted(cycle.phases, common, side="right") % num
    low = (high - 1) % num
    gap = (cycle.phases[high] - cycle.phases[low]) % 1.0
    gap = np.where(gap == 0, 1.0, gap)
    weight = (common - cycle.phases[low]) % 1.0 / gap
    apart = gap > MAX_MIXED_GAP
    nearer = np.where(weight > 0.5, high, low)
    low, high = np.where(apart, nearer, low), np.where(apart, nearer, high)
    return Blend(low, high, np.where(apart, 0.0, weight))
