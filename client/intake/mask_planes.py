"""Placing what was drawn onto the image it was drawn on, where the two have different grids.

The rule: an image pixel belongs to a class if its centre lies in a mask pixel of that class, or
within the contour. Nothing is interpolated, so no class arises between two others. A mask that is
cut off at its own edge, or that reaches beyond the image, overlaps only in part and is refused.

Axes: Y rows, X columns.
"""

from dataclasses import dataclass

import numpy as np

from client.contours import points_inside
from client.intake.frame import Frame
from protocol.errors import DataError

__all__ = ["PlaneGrid", "fill", "in_pixels", "sample_onto"]

PLANE_TOLERANCE_MM = 1.0
PARALLEL_COSINE = 0.999
OTHER_GRID = "mask on another grid than its images"
PARTIAL_OVERLAP = "mask that overlaps its images only in part"


@dataclass(frozen=True)
class PlaneGrid:
    """Where a mask's plane lies: as in `Frame`, LPS mm; spacing between rows, between columns."""

    position_mm: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    spacing_mm: tuple[float, float]


def in_pixels(points_mm: np.ndarray, frame: Frame) -> np.ndarray:
    """Return points (num_points, 3) in LPS mm as (column, row) of a frame.

    Raises
    ------
    DataError
        If a point lies more than 1 mm beside the frame's plane.
    """
    away = points_mm - np.array(frame.position_mm)
    if np.abs(away @ frame.normal).max() > PLANE_TOLERANCE_MM:
        raise DataError(OTHER_GRID)
    dy, dx = frame.pixel_spacing_mm
    return np.stack([away @ frame.along_row / dx, away @ frame.along_column / dy], axis=1)


def fill(contour: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return bool (Y, X): pixels whose centre lies inside a closed contour (column, row).

    Raises
    ------
    DataError
        If the contour reaches beyond the image.
    """
    low, high = contour.min(axis=0), contour.max(axis=0)
    limit = np.array(shape[::-1]) - 0.5
    if not np.isfinite(contour).all() or (low < -0.5).any() or (high > limit).any():
        raise DataError(PARTIAL_OVERLAP)
    filled = np.zeros(shape, dtype=bool)
    x0, y0 = np.ceil(low).astype(int).clip(0)
    x1, y1 = np.floor(high).astype(int) + 1
    x, y = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    if len(points):
        filled[y0:y1, x0:x1] = points_inside(points, contour).reshape(x.shape)
    return filled


def sample_onto(drawn: np.ndarray, grid: PlaneGrid, frame: Frame) -> np.ndarray:
    """Return a mask's plane, bool, on the pixels of a frame in the same plane.

    Raises
    ------
    DataError
        If the planes are not parallel or lie apart, or the mask overlaps the image only in part.
    """
    normal = np.cross(grid.along_row, grid.along_column)
    if abs(float(normal @ frame.normal)) < PARALLEL_COSINE * float(np.linalg.norm(normal)):
        raise DataError(OTHER_GRID)
    edges = (drawn[[0, -1]].any(), drawn[:, [0, -1]].any())
    where = np.argwhere(drawn)
    if not len(where):
        return np.zeros((frame.rows, frame.cols), dtype=bool)
    dy, dx = grid.spacing_mm
    points = (
        grid.position_mm
        + where[:, :1] * dy * grid.along_column
        + where[:, 1:] * dx * grid.along_row
    )
    reached = in_pixels(points, frame)
    if (
        any(edges)
        or (reached < -0.5).any()
        or (reached > [frame.cols - 0.5, frame.rows - 0.5]).any()
    ):
        raise DataError(PARTIAL_OVERLAP)
    y, x = np.mgrid[: frame.rows, : frame.cols]
    step_y, step_x = frame.pixel_spacing_mm
    centres = (
        np.array(frame.position_mm)
        + y[..., None] * step_y * frame.along_column
        + x[..., None] * step_x * frame.along_row
        - grid.position_mm
    )
    rows = np.floor(centres @ grid.along_column / dy + 0.5).astype(int)
    cols = np.floor(centres @ grid.along_row / dx + 0.5).astype(int)
    inside = (rows >= 0) & (rows < drawn.shape[0]) & (cols >= 0) & (cols < drawn.shape[1])
    return inside & drawn[rows.clip(0, drawn.shape[0] - 1), cols.clip(0, drawn.shape[1] - 1)]
