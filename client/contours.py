"""Manual contours as text (x y a line, pixel units), the format of the 2009 LV challenge.

Coordinates: x along columns, y along rows; the centre of the first pixel is (0, 0) up to the half
pixel that the drawing tool leaves open, which no area or overlap depends on.
"""

from pathlib import Path

import numpy as np

from protocol.errors import DataError

__all__ = ["fraction_inside", "points_inside", "polygon_area_px", "read_contour"]

MAX_POINTS, MAX_BYTES = 100_000, 8 << 20


def read_contour(path: Path) -> np.ndarray:
    """Return a closed contour as float64 (num_points, 2), columns x and y in pixels.

    Raises
    ------
    DataError
        If the file is not two columns of at least three points.
    """
    try:
        if path.is_symlink() or path.stat().st_size > MAX_BYTES:
            raise DataError("a contour file is a link or larger than 8 MiB.")
        points = [
            [float(number) for number in line.split()] for line in path.read_text().splitlines()
        ]
    except (OSError, ValueError) as error:
        raise DataError(
            "a contour file cannot be read; it must hold two numbers a line."
        ) from error
    points = [point for point in points if point]
    if not 3 <= len(points) <= MAX_POINTS or any(len(point) != 2 for point in points):
        raise DataError("a contour file does not hold two numbers a line for at least 3 points.")
    return np.array(points)


def polygon_area_px(contour: np.ndarray) -> float:
    """Return the area of a simple polygon by the shoelace formula, pixels squared."""
    x, y = contour.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def fraction_inside(inner: np.ndarray, outer: np.ndarray) -> float:
    """Return the share of the inner contour's pixels that lie inside the outer one, in [0, 1].

    An endocardial contour lies within its epicardial one; a share well below 1 means that one of
    the two was drawn on, or saved with, another image.
    """
    low = np.floor(inner.min(axis=0)).astype(int)
    high = np.ceil(inner.max(axis=0)).astype(int)
    x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    within = points[points_inside(points, inner)]
    if not len(within):
        return 0.0
    return float(points_inside(within, outer).mean())


def points_inside(points: np.ndarray, contour: np.ndarray) -> np.ndarray:
    """Return by the even-odd rule which points (n, 2) lie inside a contour (m, 2): bool (n,).

    A point is inside where a ray to the right crosses the contour an odd number of times.
    """
    start, end = contour, np.roll(contour, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    straddles = (start[:, 1] > y) != (end[:, 1] > y)
    rise = end[:, 1] - start[:, 1]
    slope = np.divide(end[:, 0] - start[:, 0], rise, out=np.zeros_like(rise), where=rise != 0)
    crossing = start[:, 0] + (y - start[:, 1]) * slope
    return (straddles & (x < crossing)).sum(axis=1) % 2 == 1
