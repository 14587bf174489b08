"""Parallel frames by the plane they lie in."""

from collections.abc import Sequence

import numpy as np

from client.intake.frame import Frame

__all__ = ["PARALLEL_COSINE", "PLANE_TOLERANCE_MM", "alike", "planes"]

PLANE_TOLERANCE_MM = 0.5
PARALLEL_COSINE = 0.999


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


def alike(frame: Frame, other: Frame) -> bool:
    """Whether two frames have one orientation and one grid."""
    same_grid = (frame.rows, frame.cols) == (other.rows, other.cols)
    # Most frames of a series repeat these to the digit; numpy would cost more than the reading.
    if frame.orientation == other.orientation and frame.pixel_spacing_mm == other.pixel_spacing_mm:
        return same_grid
    axes, other_axes = np.array(frame.orientation), np.array(other.orientation)
    row_cosine, column_cosine = axes[:3] @ other_axes[:3], axes[3:] @ other_axes[3:]
    return bool(
        min(row_cosine, column_cosine) > PARALLEL_COSINE
        and same_grid
        and np.allclose(frame.pixel_spacing_mm, other.pixel_spacing_mm, rtol=0.01)
    )
