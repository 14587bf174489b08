"""Where the heart lies in the patient, and the image planes laid through it (patient LPS, mm)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["PlaneStack", "Pose", "long_axis_plane", "orthogonal_planes", "short_axis_stack"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """Position of the heart.

    Attributes
    ----------
    base : ndarray
        (3,) centre of the mitral plane at end-diastole.
    axis : ndarray
        (3,) unit vector from base to apex: to the left, forwards and down.
    lateral, inferior : ndarray
        (3,) unit vectors from the septum to the free wall, and from the anterior wall to the
        inferior one: columns and rows of a short-axis image as it is shown to the reader.
    """

    base: Vector
    axis: Vector
    lateral: Vector
    inferior: Vector

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Pose":
        """Return a pose near the usual one, a few degrees and millimetres off."""
        base = np.array([22.0, 8.0, 26.0]) + rng.normal(0, 5, 3)
        axis = np.array([0.62, -0.55, -0.55]) + rng.normal(0, 0.07, 3)
        axis /= np.linalg.norm(axis)
        down = np.array([0.0, 0.0, -1.0]) + rng.normal(0, 0.10, 3)
        inferior = down - axis * (down @ axis)
        inferior /= np.linalg.norm(inferior)
        return cls(base, axis, np.cross(axis, inferior), inferior)


@dataclass(frozen=True)
class PlaneStack:
    """Parallel square images.

    Attributes
    ----------
    origin_mm : ndarray
        (Z, 3) centre of the first pixel of each image (ImagePositionPatient).
    columns, rows : ndarray
        (3,) direction in which the column and the row index grow.
    """

    origin_mm: Vector
    columns: Vector
    rows: Vector
    spacing_mm: float
    size_px: int
    thickness_mm: float
    step_mm: float

    @cached_property
    def normal(self) -> Vector:
        """Unit normal, columns x rows."""
        return np.cross(self.columns, self.rows)

    def points(self, z: int, shift_mm: Vector) -> tuple[NDArray[np.float32], ...]:
        """Return x, y, z of image ``z``'s pixels, each (Y, X), when the patient is shifted by (2,).

        The shift is along (columns, rows); a pixel then shows the tissue that was there before.
        """
        index = np.arange(self.size_px) * self.spacing_mm
        across, down = index[None, :] - shift_mm[0], index[:, None] - shift_mm[1]
        x, y, z_lps = (
            ((self.origin_mm[z, k] + down * self.rows[k]) + across * self.columns[k]).astype(
                np.float32
            )
            for k in range(3)
        )
        return x, y, z_lps

    def pixel(self, point_mm: Vector) -> Vector:
        """Return (Z, 2) column and row coordinates of a patient point projected on each image."""
        offset = point_mm - self.origin_mm
        return np.stack([offset @ self.columns, offset @ self.rows], axis=1) / self.spacing_mm


def _around(
    centre_mm: Vector, columns: Vector, rows: Vector, spacing_mm: float, size_px: int
) -> Vector:
    half = 0.5 * (size_px - 1) * spacing_mm
    return centre_mm - half * (columns + rows)


def short_axis_stack(
    pose: Pose,
    length_mm: float,
    *,
    spacing_mm: float,
    size_px: int,
    thickness_mm: float,
    step_mm: float,
    lead_mm: float,
    off_centre_mm: Vector,
) -> PlaneStack:
    """Return a stack from ``lead_mm`` above the base to at least half a slice beyond the apex.

    The images are centred off the LV axis by ``off_centre_mm``, (2,) along columns and rows.
    """
    num_slices = int(np.ceil((lead_mm + length_mm) / step_mm)) + 1
    level = -lead_mm + step_mm * np.arange(num_slices)
    centre = pose.base + off_centre_mm[0] * pose.lateral + off_centre_mm[1] * pose.inferior
    first = _around(centre, pose.lateral, pose.inferior, spacing_mm, size_px)
    origin = first + level[:, None] * pose.axis
    return PlaneStack(
        origin, pose.lateral, pose.inferior, spacing_mm, size_px, thickness_mm, step_mm
    )


def long_axis_plane(
    pose: Pose, angle: float, length_mm: float, spacing_mm: float, size_px: int
) -> PlaneStack:
    """Return one plane through the long axis, apex up; ``angle`` (AHA sense) is its left side."""
    columns = np.cos(angle) * pose.inferior + np.sin(angle) * pose.lateral
    centre = pose.base + 0.5 * length_mm * pose.axis
    origin = _around(centre, columns, -pose.axis, spacing_mm, size_px)
    return PlaneStack(origin[None], columns, -pose.axis, spacing_mm, size_px, 6.0, 6.0)


def orthogonal_planes(pose: Pose, spacing_mm: float, size_px: int) -> tuple[PlaneStack, ...]:
    """Return the three localizers: transverse, coronal, sagittal."""
    left, back, up = np.eye(3)
    stacks = []
    for columns, rows in ((left, back), (left, -up), (back, -up)):
        centre = np.array([0.0, 0.0, 0.0])
        normal = np.cross(columns, rows)
        centre = centre + normal * (normal @ (pose.base + 40 * pose.axis))
        origin = _around(centre, columns, rows, spacing_mm, size_px)
        stacks.append(PlaneStack(origin[None], columns, rows, spacing_mm, size_px, 8.0, 8.0))
    return tuple(stacks)
