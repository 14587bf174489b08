"""One heart beat: volumes prescribed, endocardium displaced regionally, myocardium incompressible.

Axes: T frames, S levels, A angles as in `sim.phantom.geometry`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.phantom.geometry import RV_WALL_MM, Heart, Table, shell_volume_ml

__all__ = ["Beat", "Function", "beat", "contraction", "end_systolic_frame"]


@dataclass(frozen=True)
class Function:
    """How the heart pumps.

    Attributes
    ----------
    ejection_fraction, rv_ejection_fraction : float
        In (0, 1).
    descent_mm : float
        Descent of the mitral plane towards the apex (MAPSE).
    twist_rad : float
        Rotation of the apex against the base at end-systole.
    """

    ejection_fraction: float
    rv_ejection_fraction: float
    descent_mm: float
    twist_rad: float


@dataclass(frozen=True)
class Beat:
    """Surfaces at T phases; the apex is fixed, the base plane comes down.

    Attributes
    ----------
    phase : ndarray
        (T,) share of the RR interval in [0, 1).
    length_mm : ndarray
        (T,) LV length.
    endo_mm, epi_mm, rv_mm, rv_epi_mm : ndarray
        (T, S, A) radii; the RV's are those of its free wall.
    twist_rad : ndarray
        (T,) rotation of the apex.
    """

    phase: Table
    length_mm: Table
    level_mm: Table
    endo_mm: Table
    epi_mm: Table
    rv_mm: Table
    rv_epi_mm: Table
    twist_rad: Table

    def volumes_ml(self, frame: int) -> tuple[float, float, float]:
        """Return (LV cavity, myocardium, RV cavity) at a frame, mL."""
        level = float(self.level_mm[frame])
        endo, epi, rv = self.endo_mm[frame], self.epi_mm[frame], self.rv_mm[frame]
        return (
            shell_volume_ml(endo, 0.0, level),
            shell_volume_ml(epi, endo, level),
            shell_volume_ml(rv, epi, level),
        )


def _rise(x: Table) -> Table:
    return 0.5 * (1 - np.cos(np.pi * np.clip(x, 0, 1)))


def contraction(phase: NDArray[np.float64]) -> Table:
    """Return how far systole has gone, 0 at end-diastole to 1 at end-systole.

    Isovolumic 0.05, ejection to 0.35 of the RR interval, isovolumic relaxation to 0.40, rapid
    filling to 0.60 (85 % of the stroke), diastasis, atrial kick from 0.85.
    """
    ejected = _rise((phase - 0.05) / 0.30)
    filled = 0.85 * _rise((phase - 0.40) / 0.20) + 0.15 * _rise((phase - 0.85) / 0.15)
    return ejected - filled


def end_systolic_frame(phase: NDArray[np.float64]) -> int:
    """Return the frame nearest to end-systole; the earlier one of two equals."""
    return int(np.argmax(np.round(contraction(phase), 9)))


def beat(heart: Heart, function: Function, mobility: Table, phase: Table) -> Beat:
    """Return the surfaces over one beat.

    The endocardium moves inwards by ``kappa mobility`` of its radius; kappa solves the prescribed
    volume, a quadratic: ``int r^2 (1 - kappa m)^2``. Each material wedge keeps its wall volume:
    ``R^2 = r^2 + (R0^2 - r0^2) L0 / L``.

    Parameters
    ----------
    mobility : ndarray
        (S, A) in (0, 1], 1 where the wall moves freely, small in scar.
    phase : ndarray
        (T,) in [0, 1).
    """
    systole = contraction(phase)
    length0 = heart.anatomy.length_mm
    length = length0 - function.descent_mm * systole
    level = heart.level_mm * length / length0
    volume = heart.anatomy.edv_ml * (1 - function.ejection_fraction * systole)
    square0 = np.square(heart.endo_mm)
    moments = [float((square0 * mobility**power).mean(axis=1).sum()) for power in (0, 1, 2)]
    target = volume * 1000 / (np.pi * level)
    root = np.sqrt(np.clip(moments[1] ** 2 - moments[2] * (moments[0] - target), 0, None))
    kappa = (moments[1] - root) / moments[2]
    endo = heart.endo_mm * np.clip(1 - kappa[:, None, None] * mobility, 0.02, None)
    wall = (np.square(heart.epi_mm) - square0) * (length0 / length)[:, None, None]
    epi = np.sqrt(np.square(endo) + wall)
    rv_volume = heart.anatomy.rv_edv_ml * (1 - function.rv_ejection_fraction * systole)
    linear = (epi * heart.rv_shape).mean(axis=2).sum(axis=1)
    square = float(np.square(heart.rv_shape).mean(axis=1).sum())
    target = rv_volume * 1000 / (np.pi * level)
    depth = (-linear + np.sqrt(linear**2 + square * target)) / square
    rv = epi + depth[:, None, None] * heart.rv_shape
    rv_epi = rv + RV_WALL_MM * np.minimum(1, 4 * heart.rv_shape)
    twist = function.twist_rad * systole
    return Beat(phase, length, level, endo, epi, rv, rv_epi, twist)
