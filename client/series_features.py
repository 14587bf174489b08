"""A part of a series as the sorting network sees it: a picture, its motion, and a few numbers.

Axes: N parts, Y rows, X columns, F numbers.
"""

import math
from collections.abc import Sequence

import numpy as np

from client.geometry import resample_plane
from client.intake.decoder import Decoder
from client.intake.frame import Frame
from client.intake.images import read_plane
from client.intake.parts import KINDS, Part
from client.intake.planes import planes
from client.intake.sequences import PHASE_TYPES, timing_of
from client.intake.views import USUAL_AXIS
from protocol.errors import DataError
from shared_models.sorting import NUM_FEATURES

__all__ = ["SIZE_PX", "part_features", "part_picture"]

SIZE_PX = 48
FOV_MM = 280.0
PERCENTILES = (1.0, 99.0)


def part_picture(part: Part, decoder: Decoder) -> np.ndarray | None:
    """Return float32 (2, 48, 48): the middle plane's middle frame, and how it differs from another.

    In [0, 1] and [-1, 1] of the middle frame's own range; ``None`` where the pixels cannot be read.
    """
    groups = planes(part.frames)
    group = sorted(groups[len(groups) // 2], key=_moment)
    try:
        middle = _square(group[len(group) // 2], decoder)
        other = _square(group[0], decoder) if len(group) > 1 else middle
    except DataError:
        return None
    low, high = np.percentile(middle, PERCENTILES)
    if not (np.isfinite(middle).all() and np.isfinite(other).all() and high > low):
        return None
    scaled = np.clip((np.stack([middle, other]) - low) / (high - low), 0.0, 1.0)
    return np.stack([scaled[0], scaled[0] - scaled[1]]).astype(np.float32)


def _moment(frame: Frame) -> tuple[float, float, float, str]:
    numbers = (frame.trigger_ms, frame.inversion_ms, frame.temporal_index)
    a, b, c = (number if math.isfinite(number) else 0.0 for number in numbers)
    return a, b, c, frame.sop_uid


def _square(frame: Frame, decoder: Decoder) -> np.ndarray:
    """Sample a frame on a square of a fixed field of view around its centre."""
    image = read_plane(frame, decoder)
    step = FOV_MM / SIZE_PX
    rows, cols = step / frame.pixel_spacing_mm[0], step / frame.pixel_spacing_mm[1]
    middle = (SIZE_PX - 1) / 2
    grid = np.array(
        [
            [0.0, rows, (frame.rows - 1) / 2 - rows * middle],
            [cols, 0.0, (frame.cols - 1) / 2 - cols * middle],
        ]
    )
    return resample_plane(image, grid, SIZE_PX)


def part_features(part: Part, parts: Sequence[Part]) -> np.ndarray:
    """Return float32 (F,) of about unit size: geometry and tags, 0 where a tag is absent.

    Parameters
    ----------
    parts : sequence of Part
        All parts of the study: positions count from the middle of their centres.
    """
    first = part.frames[0]
    groups = planes(part.frames)
    timing, tags = timing_of(groups), first.tags
    normal = first.normal if first.normal @ USUAL_AXIS > 0 else -first.normal
    centres = np.array([other.frames[0].centre_mm for other in parts])
    aside = (first.centre_mm - np.median(centres, axis=0)) / 100.0
    words = set(first.image_type)
    numbers = [
        *normal,
        *np.abs(normal),
        *np.clip(aside, -3, 3),
        math.log1p(len(groups)) / 3,
        math.log1p(timing.depth) / 3,
        math.log1p(timing.triggers) / 3,
        math.log1p(timing.inversions) / 2,
        math.log1p(timing.beats) / 3,
        tags.flip_deg / 90.0,
        math.log1p(max(tags.repetition_ms, 0.0)) / 7,
        tags.echo_ms / 50.0,
        float(first.inversion_recovery or first.inversion_ms > 0),
        float(tags.contrast_agent),
        float("SE" in tags.scanning),
        float("SS" in tags.variant),
        float(bool(words & PHASE_TYPES)),
        float(bool(words & {"R", "REAL", "PSIR"})),
        float(bool(words & (KINDS - PHASE_TYPES - {"R", "REAL", "PSIR", "LOCALIZER"}))),
    ]
    table = np.nan_to_num(np.array(numbers, np.float32), nan=0.0, posinf=3.0, neginf=-3.0)
    if table.shape != (NUM_FEATURES,):
        raise ValueError(f"{table.size} numbers of a series, expected {NUM_FEATURES}")
    return np.clip(table, -5.0, 5.0)
