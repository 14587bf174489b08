"""The heart at end-diastole: every surface is a radius over (level, angle) about the LV long axis.

Axes of all tables: (S, A) with S levels ``sigma`` from 0 (mitral plane) to 1 (endocardial apex) and
beyond to the epicardial apex, A angles ``theta`` in [0, 2 pi): 0 is anterior, pi/2 the septum
(towards the RV), pi inferior, 3 pi/2 lateral, the order of the AHA segments. Lengths in mm.

A star-shaped surface has the volume ``1/2 int int r^2 dtheta dz``, and it can be rasterised by one
table look-up a pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BASE_FRACTION",
    "NUM_ANGLES",
    "NUM_LEVELS",
    "RV_WALL_MM",
    "Anatomy",
    "Heart",
    "Table",
    "build_heart",
    "bump",
    "ellipsoid_volume_ml",
    "shell_volume_ml",
]

Table = NDArray[np.float64]

NUM_ANGLES = 256
NUM_LEVELS = 72
#: The mitral plane cuts the spheroid at this share of the LV length above its centre.
BASE_FRACTION = 0.29
RV_APEX = 0.90
RV_WALL_MM = 3.0


@dataclass(frozen=True)
class Anatomy:
    """A patient's heart in numbers.

    Attributes
    ----------
    edv_ml, rv_edv_ml : float
        End-diastolic volumes of the cavities.
    length_mm : float
        LV length, mitral plane to endocardial apex, at end-diastole.
    wall_mm : float
        Mean wall thickness at end-diastole before the two modifications below.
    septal_hypertrophy : float
        Extra thickness of the septum, as a share of ``wall_mm``.
    roughness : tuple of float
        Amplitudes and phases (a2, p2, a3, p3) of the contour's second and third harmonic.
    rv_half_angle : float
        Half the angle over which the RV touches the LV, rad.
    """

    edv_ml: float
    rv_edv_ml: float
    length_mm: float
    wall_mm: float
    septal_hypertrophy: float
    roughness: tuple[float, float, float, float]
    rv_half_angle: float


@dataclass(frozen=True)
class Heart:
    """End-diastolic surfaces.

    Attributes
    ----------
    sigma, theta : ndarray
        Level mid-points, (S,), and angles, (A,).
    level_mm : float
        Distance between levels.
    endo_mm, epi_mm : ndarray
        (S, A) radii of endocardium and epicardium.
    rv_shape : ndarray
        (S, A) thickness of the RV cavity beyond the epicardium per unit of ``rv_depth_mm``.
    rv_depth_mm : float
        Largest thickness of the RV cavity, radially.
    """

    anatomy: Anatomy
    sigma: Table
    theta: Table
    level_mm: float
    endo_mm: Table
    epi_mm: Table
    rv_shape: Table
    rv_depth_mm: float


def ellipsoid_volume_ml(radius_mm: float, length_mm: float) -> float:
    """Return the volume of a truncated prolate spheroid, mL.

    ``pi a^2 (2c/3 + h - h^3/(3 c^2))`` with apex at -c, base plane at +h, L = c + h, h = 0.29 L.
    """
    h = BASE_FRACTION * length_mm
    c = length_mm - h
    return np.pi * radius_mm**2 * (2 * c / 3 + h - h**3 / (3 * c**2)) / 1000


def shell_volume_ml(outer_mm: Table, inner_mm: Table | float, level_mm: float) -> float:
    """Return the volume between two star-shaped surfaces, mL, by the mid-point rule."""
    squares = np.square(outer_mm) - np.square(inner_mm)
    return float(squares.mean(axis=-1).sum(axis=-1) * np.pi * level_mm / 1000)


def _profile(depth_mm: Table, h: float, c: float) -> Table:
    """Relative radius of a spheroid at ``depth_mm`` below its base plane; 0 beyond the apex."""
    return np.sqrt(np.clip(1 - np.square((depth_mm - h) / c), 0, None))


def bump(distance: NDArray[np.float64], half_width: float) -> NDArray[np.float64]:
    """Smooth window: 1 at distance 0, 0 from ``half_width`` on, cosine between."""
    return 0.5 * (1 + np.cos(np.pi * np.clip(np.abs(distance) / half_width, 0, 1)))


def _rv_shape(sigma: Table, theta: Table, half_angle: float) -> Table:
    """Crescent: full at the base, gone at ``RV_APEX``, blunt at the insertion points."""
    along = np.sqrt(np.clip(1 - np.square(sigma / RV_APEX), 0, None))
    span = half_angle * (0.70 + 0.30 * along)
    across = np.clip(1 - np.square((theta - np.pi / 2)[None, :] / span[:, None]), 0, None) ** 0.6
    return along[:, None] * across


def build_heart(anatomy: Anatomy) -> Heart:
    """Return the surfaces that have exactly the anatomy's volumes."""
    length, wall = anatomy.length_mm, anatomy.wall_mm
    apex_wall = 0.7 * wall
    end = (length + apex_wall) / length
    sigma = (np.arange(NUM_LEVELS) + 0.5) * end / NUM_LEVELS
    theta = np.arange(NUM_ANGLES) * 2 * np.pi / NUM_ANGLES
    level_mm = end * length / NUM_LEVELS
    h = BASE_FRACTION * length
    a2, p2, a3, p3 = anatomy.roughness
    contour = 1 + a2 * np.cos(2 * (theta - p2)) + a3 * np.cos(3 * (theta - p3))
    unit = _profile(sigma * length, h, length - h)[:, None] * contour[None, :]
    radius = np.sqrt(anatomy.edv_ml / shell_volume_ml(unit, 0.0, level_mm))
    septum = bump(theta - np.pi / 2, 1.7)[None, :] * bump(sigma - 0.30, 0.75)[:, None]
    thickness = wall * (1 + anatomy.septal_hypertrophy * septum)
    outer = _profile(sigma * length, h, length - h + apex_wall)[:, None]
    endo = radius * unit
    epi = (radius * contour[None, :] + thickness) * outer
    shape = _rv_shape(sigma, theta, anatomy.rv_half_angle)
    # 1/2 int ((R + d g)^2 - R^2) = d int R g + d^2/2 int g^2, solved for d.
    linear = 2 * shell_volume_ml(np.sqrt(epi * shape), 0.0, level_mm)
    square = shell_volume_ml(shape, 0.0, level_mm)
    depth = (-linear + np.sqrt(linear**2 + 4 * square * anatomy.rv_edv_ml)) / (2 * square)
    return Heart(anatomy, sigma, theta, level_mm, endo, epi, shape, float(depth))
