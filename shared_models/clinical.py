"""Clinical quantities of a segmented ventricle: volumes, ejection fraction, mass, wall, scar.

Shapes: Z slices, Y rows, X columns; ``spacing_mm`` = (dz, dy, dx), where dz is the distance between
slice centres (thickness plus gap).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from shared_models.labels import LV, MYO, RV

__all__ = [
    "MYOCARDIAL_DENSITY_G_PER_ML",
    "Remote",
    "VentricularFunction",
    "WallThickness",
    "estimate_remote",
    "scar_fwhm",
    "scar_n_sd",
    "scar_percent",
    "ventricular_function",
    "volume_ml",
    "wall_thickness",
]

MYOCARDIAL_DENSITY_G_PER_ML = 1.05


@dataclass(frozen=True)
class VentricularFunction:
    """Volumes (ml), ejection fractions (percent) and mass (g) of one patient.

    An ejection fraction is NaN when the end-diastolic volume is zero.
    """

    lv_edv_ml: float
    lv_esv_ml: float
    lv_sv_ml: float
    lv_ef_percent: float
    rv_edv_ml: float
    rv_esv_ml: float
    rv_sv_ml: float
    rv_ef_percent: float
    lv_mass_g: float


@dataclass(frozen=True)
class WallThickness:
    """Thickness of the left ventricular wall over all slices, mm; NaN where no slice has one."""

    mean_mm: float
    max_mm: float


@dataclass(frozen=True)
class Remote:
    """Mean and standard deviation of normal (remote) myocardium, in the intensity units of LGE."""

    mean: float
    sd: float


def volume_ml(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the volume of a boolean mask: voxels x dx dy dz / 1000, ml."""
    return int(np.count_nonzero(mask)) * float(np.prod(spacing_mm)) / 1000.0


def ventricular_function(
    ed_labels: np.ndarray, es_labels: np.ndarray, spacing_mm: Sequence[float]
) -> VentricularFunction:
    """Return the usual quantities from labels at end-diastole and end-systole.

    Parameters
    ----------
    ed_labels, es_labels : ndarray
        (Z, Y, X) with the project's labels.
    spacing_mm : sequence of float
        (dz, dy, dx).

    References
    ----------
    Bai et al., J Cardiovasc Magn Reson 2018;20:65. EF = (EDV - ESV) / EDV; the mass is that of the
    myocardium at end-diastole at 1.05 g/ml.
    """
    values = {}
    for name, label in (("lv", LV), ("rv", RV)):
        edv = volume_ml(ed_labels == label, spacing_mm)
        esv = volume_ml(es_labels == label, spacing_mm)
        values[f"{name}_edv_ml"] = edv
        values[f"{name}_esv_ml"] = esv
        values[f"{name}_sv_ml"] = edv - esv
        values[f"{name}_ef_percent"] = 100 * (edv - esv) / edv if edv > 0 else float("nan")
    mass = MYOCARDIAL_DENSITY_G_PER_ML * volume_ml(ed_labels == MYO, spacing_mm)
    return VentricularFunction(lv_mass_g=mass, **values)


def wall_thickness(labels: np.ndarray, spacing_mm: Sequence[float]) -> WallThickness:
    """Return the in-plane distance from the epicardial border to the cavity.

    The border is the outermost myocardial pixels of a slice; the distance of their centres to the
    nearest cavity centre equals the thickness, since half a pixel is lost on one side and gained on
    the other. Slices without cavity or myocardium are left out.

    Parameters
    ----------
    labels : ndarray
        (Z, Y, X) with the project's labels, usually at end-diastole.
    spacing_mm : sequence of float
        (dz, dy, dx).
    """
    found = []
    for plane in labels:
        cavity, wall = plane == LV, plane == MYO
        if not (cavity.any() and wall.any()):
            continue
        inner = ndimage.binary_erosion(cavity | wall, border_value=1)
        border = wall & ~inner
        distance = ndimage.distance_transform_edt(~cavity, sampling=spacing_mm[1:])
        found.append(distance[border])
    points = np.concatenate(found) if found else np.empty(0)
    if not points.size:
        return WallThickness(float("nan"), float("nan"))
    return WallThickness(float(points.mean()), float(points.max()))


def estimate_remote(lge: np.ndarray, myocardium: np.ndarray) -> Remote:
    """Estimate normal myocardium's intensity without a drawn region.

    Scar is brighter than normal myocardium, so what lies below the commonest intensity is free of
    it: the mean is the mode of the intensities, the deviation the root mean square of the part
    below the mode. Wrong where scar is the larger part.

    Parameters
    ----------
    lge : ndarray
        Late enhancement, any shape and unit.
    myocardium : ndarray
        Boolean mask of the same shape; without a voxel in it the result is NaN.
    """
    values = lge[myocardium].astype(np.float64)
    if not values.size:
        return Remote(float("nan"), float("nan"))
    low, high = float(values.min()), float(values.max())
    if high == low:
        return Remote(low, 0.0)
    counts, edges = np.histogram(values, bins=128, range=(low, high))
    # Smoothed with 4 % of the range: the mode of a raw histogram jumps from bin to bin.
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), 5.0, mode="constant")
    peak = int(smooth.argmax())
    mode = float(edges[peak] + edges[peak + 1]) / 2
    below = values[values <= mode]
    sd = float(np.sqrt(np.mean((below - mode) ** 2))) if below.size else 0.0
    return Remote(mode, sd)


def scar_n_sd(
    lge: np.ndarray, myocardium: np.ndarray, num_sd: float = 5.0, remote: Remote | None = None
) -> np.ndarray:
    """Return the myocardial voxels brighter than remote mean + n SD.

    Parameters
    ----------
    lge, myocardium : ndarray
        Late enhancement and a boolean mask of the same shape.
    num_sd : float
        n, usually 2 to 6; a larger n finds less scar.
    remote : Remote, optional
        By default `estimate_remote`.

    Returns
    -------
    ndarray
        Boolean, of the same shape.
    """
    remote = estimate_remote(lge, myocardium) if remote is None else remote
    if not np.isfinite(remote.mean):
        return np.zeros(myocardium.shape, dtype=bool)
    return myocardium & (lge > remote.mean + num_sd * remote.sd)


def scar_fwhm(
    lge: np.ndarray, myocardium: np.ndarray, *, floor: float = 0.0, min_sd: float = 5.0
) -> np.ndarray:
    """Return the myocardial voxels above half of the brightest one (full width at half maximum).

    Parameters
    ----------
    lge, myocardium : ndarray
        Late enhancement and a boolean mask of the same shape.
    floor : float
        Intensity from which the half is counted: 0, or the remote mean for the midway variant.
    min_sd : float
        A maximum less than this many SD above remote is no scar, and the result is empty: half of
        the brightest normal voxel would otherwise call most of a healthy wall scar.

    Returns
    -------
    ndarray
        Boolean, of the same shape.
    """
    remote = estimate_remote(lge, myocardium)
    if not np.isfinite(remote.mean):
        return np.zeros(myocardium.shape, dtype=bool)
    brightest = float(lge[myocardium].max())
    if brightest <= remote.mean + min_sd * remote.sd:
        return np.zeros(myocardium.shape, dtype=bool)
    return myocardium & (lge > floor + 0.5 * (brightest - floor))


def scar_percent(scar: np.ndarray, myocardium: np.ndarray) -> float:
    """Return scar as percent of myocardium, in [0, 100]; NaN without myocardium."""
    total = int(np.count_nonzero(myocardium))
    return 100.0 * int(np.count_nonzero(scar & myocardium)) / total if total else float("nan")
