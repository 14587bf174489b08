"""Scar: patches in the wall's own coordinates, with a border (grey) zone around a core.

Coordinates: ``theta`` and ``sigma`` as in `sim.phantom.geometry`, and depth in [0, 1] from
endocardium to epicardium. A patch's intensity falls from 1 inside to 0 outside over its soft
border; core is intensity >= 0.7, grey zone 0.3 to 0.7.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.phantom.geometry import Heart, Table

__all__ = [
    "CORE",
    "GREY",
    "Patch",
    "Scar",
    "ScarBurden",
    "measure_scar",
    "mobility",
    "scar_intensity",
]

CORE, GREY = 0.7, 0.3
NUM_DEPTHS = 12
Field = NDArray[np.floating]


@dataclass(frozen=True)
class Patch:
    """One piece of scar: a box in (angle, level, depth) with soft, wavy edges.

    Attributes
    ----------
    theta, half_theta : float
        Centre and half-width, rad.
    sigma, half_sigma : float
        Centre and half-width along the long axis.
    inner, outer : float
        Depths between which the patch lies.
    border : float
        Width of the soft edge relative to the half-widths.
    wave : float
        Phase of the edge's wave, rad.
    """

    theta: float
    half_theta: float
    sigma: float
    half_sigma: float
    inner: float
    outer: float
    border: float
    wave: float


Scar = tuple[Patch, ...]


@dataclass(frozen=True)
class ScarBurden:
    """Scar in numbers: percent of the myocardial volume, and the wall's affected share.

    Attributes
    ----------
    transmurality : ndarray
        (S, A) share of the wall's depth that is core or grey, in [0, 1].
    """

    core_percent: float
    grey_percent: float
    transmurality: Table


def _soft(distance: Field, half_width: float, border: float) -> Field:
    return np.clip((half_width - np.abs(distance)) / (border * half_width) + 0.5, 0, 1)


def _patch_intensity(patch: Patch, theta: Field, sigma: Field, depth: Field) -> Field:
    angle = np.mod(theta - patch.theta + np.pi, 2 * np.pi) - np.pi
    waved = patch.half_theta * (1 + 0.18 * np.sin(9 * sigma + patch.wave))
    inside = _soft(angle / waved, 1.0, patch.border)
    waved = patch.half_sigma * (1 + 0.15 * np.sin(3 * theta + patch.wave))
    inside = np.minimum(inside, _soft((sigma - patch.sigma) / waved, 1.0, patch.border))
    middle, half = 0.5 * (patch.inner + patch.outer), 0.5 * (patch.outer - patch.inner)
    half = half * (1 + 0.12 * np.sin(5 * theta + 2 * patch.wave))
    # The wall is thin: its soft edge is a fixed share of the depth, not of the patch.
    return np.minimum(inside, np.clip((half - np.abs(depth - middle)) / 0.15 + 0.5, 0, 1))


def scar_intensity(scar: Scar, theta: Field, sigma: Field, depth: Field) -> Field:
    """Return scar intensity in [0, 1] at points given by three arrays that broadcast."""
    intensity: Field = np.zeros(np.broadcast(theta, sigma, depth).shape, dtype=np.float32)
    for patch in scar:
        intensity = np.maximum(intensity, _patch_intensity(patch, theta, sigma, depth))
    return intensity


def measure_scar(heart: Heart, scar: Scar) -> ScarBurden:
    """Return the burden by quadrature over the end-diastolic wall."""
    depth = (np.arange(NUM_DEPTHS) + 0.5) / NUM_DEPTHS
    inner, outer = heart.endo_mm[:, ::2, None], heart.epi_mm[:, ::2, None]
    radius = inner + depth * (outer - inner)
    weight = radius * (outer - inner)
    intensity = scar_intensity(
        scar, heart.theta[None, ::2, None], heart.sigma[:, None, None], depth[None, None, :]
    )
    total = float(weight.sum())
    core = float(weight[intensity >= CORE].sum()) / total
    grey = float(weight[(intensity >= GREY) & (intensity < CORE)].sum()) / total
    affected = np.repeat((intensity >= GREY).mean(axis=2), 2, axis=1)
    return ScarBurden(100 * core, 100 * grey, affected)


def mobility(transmurality: Table, akinesia: float) -> Table:
    """Return the wall's freedom to move, (S, A) in [0.1, 1].

    ``akinesia`` in [0, 1] is how much a transmural scar immobilises the wall; the edge is smoothed,
    because neighbouring muscle tethers it.
    """
    smooth = transmurality
    for shift in (4, 8, 16):
        smooth = (np.roll(smooth, shift, 1) + 2 * smooth + np.roll(smooth, -shift, 1)) / 4
    return np.clip(1 - akinesia * smooth, 0.1, 1)
