"""Whether a cine can be measured: figures of one study, and the site's limits on them.

A study beyond a limit is set aside with its reason; the limits are the hospital's own, in
``site.yaml``. The figures compare a study with itself, so they need no mask and no reference.

Axes: T phases, Z slices base to apex, Y rows, X columns.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

from client.burned_text import text_characters
from client.placement import Stack, find_lv_centre
from client.quality_limits import QualityLimits

__all__ = ["BURNED_TEXT", "Quality", "examine_cine", "problems"]

REGION_MM, HEART_MM = 60.0, 40.0
MAX_SHIFT_MM = 25.0
GRADIENT_MM = 2.0
# Slices at the tips hardly move; what they do in time says nothing about the trigger.
MIN_MOTION = 0.25
BURNED_TEXT = "text is burned into the pixels"


@dataclass(frozen=True)
class Quality:
    """Figures of one cine.

    Attributes
    ----------
    num_slices : int
        Z.
    extent_mm : float
        Z times the slice distance.
    slice_distance_mm, pixel_mm : float
        Centre to centre along the normal; the larger side of a pixel.
    signal_to_noise, contrast_to_noise : float
        In 40 mm around the left ventricle: 90th percentile (blood), and 90th less 25th (blood less
        muscle), over the noise sd. Noise is the median absolute diagonal wavelet detail / .6745
        (Donoho & Johnstone 1994, Biometrika 81:425); where the scanner has interpolated the image
        it is underestimated.
    misalignment_mm : float
        Largest jump of one slice against the mean of its two neighbours, in its plane, among the
        middle three fifths of the slices, as the tips look too unlike their neighbours; 0 for fewer
        than three. Shifts are the maxima of the correlation of gradient magnitudes.
    mistriggered : float
        Share of the slices that move whose curve of change over the beat correlates less than .5
        with the median curve of the others, in [0, 1]; 0 for fewer than three phases.
    text_characters : int
        Longest line of what looks like burned-in text, see `client.burned_text`.
    """

    num_slices: int
    extent_mm: float
    slice_distance_mm: float
    pixel_mm: float
    signal_to_noise: float
    contrast_to_noise: float
    misalignment_mm: float
    mistriggered: float
    text_characters: int = 0


def examine_cine(cine: Stack) -> Quality:
    """Return the figures of one cine.

    Raises
    ------
    DataError
        If the cine does not move, so that the left ventricle cannot be found.
    """
    dz, dy, dx = cine.spacing_mm
    centre = find_lv_centre(cine.pixels, cine.spacing_mm)
    region = _around(cine.pixels, centre, (dy, dx), REGION_MM)
    heart = _around(cine.pixels, centre, (dy, dx), HEART_MM)
    noise = max(_noise_sd(region[0]), 1e-12)
    blood, muscle = np.percentile(heart[0], [90, 25])
    num_slices = cine.pixels.shape[1]
    return Quality(
        num_slices=num_slices,
        extent_mm=num_slices * dz,
        slice_distance_mm=dz,
        pixel_mm=max(dy, dx),
        signal_to_noise=float(blood / noise),
        contrast_to_noise=float((blood - muscle) / noise),
        misalignment_mm=_misalignment_mm(region[0], (dy, dx)),
        mistriggered=_mistriggered(heart),
        text_characters=text_characters(cine.pixels),
    )


def problems(quality: Quality, limits: QualityLimits) -> list[str]:
    """Return what keeps a study out, each a few words without a figure of the patient's."""
    q, least, most = quality, limits.slice_distance_mm, limits.pixel_mm
    checks = (
        (q.num_slices >= limits.min_slices, f"fewer than {limits.min_slices} slices"),
        (
            q.extent_mm >= limits.min_extent_mm,
            f"slices cover less than {limits.min_extent_mm:g} mm",
        ),
        (
            least[0] <= q.slice_distance_mm <= least[1],
            f"slice distance outside {least[0]:g} to {least[1]:g} mm",
        ),
        (most[0] <= q.pixel_mm <= most[1], f"pixels outside {most[0]:g} to {most[1]:g} mm"),
        (
            q.signal_to_noise >= limits.min_signal_to_noise,
            f"signal below {limits.min_signal_to_noise:g} times the noise",
        ),
        (
            q.contrast_to_noise >= limits.min_contrast_to_noise,
            f"contrast below {limits.min_contrast_to_noise:g} times the noise",
        ),
        (
            q.misalignment_mm <= limits.max_misalignment_mm,
            f"a slice is displaced by more than {limits.max_misalignment_mm:g} mm",
        ),
        (
            q.mistriggered <= limits.max_mistriggered,
            f"more than {limits.max_mistriggered:.0%} of the slices contract out of step",
        ),
        (q.text_characters <= limits.max_text_characters, BURNED_TEXT),
    )
    return [problem for good, problem in checks if not good]


def _around(
    pixels: np.ndarray, centre: tuple[float, float], step_mm: tuple[float, float], reach_mm: float
) -> np.ndarray:
    """Return a square of the stack around a point (row, column), cut at the image's edge."""
    low = [max(0, round(c - reach_mm / s)) for c, s in zip(centre, step_mm, strict=True)]
    high = [round(c + reach_mm / s) + 1 for c, s in zip(centre, step_mm, strict=True)]
    return pixels[:, :, low[0] : high[0], low[1] : high[1]]


def _noise_sd(slices: np.ndarray) -> float:
    rows, cols = (size // 2 * 2 for size in slices.shape[1:])
    even = slices[:, :rows, :cols]
    detail = (even[:, ::2, ::2] - even[:, 1::2, ::2] - even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 2
    return float(np.median(np.abs(detail)) / 0.6745)


def _misalignment_mm(slices: np.ndarray, step_mm: tuple[float, float]) -> float:
    edge = len(slices) // 5
    slices = slices[edge : len(slices) - edge]
    if len(slices) < 3:
        return 0.0
    sigma = [GRADIENT_MM / step for step in step_mm]
    edges = [np.hypot(*np.gradient(gaussian_filter(image, sigma))) for image in slices]
    jumps = np.array([_shift_px(one, other, step_mm) for one, other in pairwise(edges)]) * step_mm
    # The place of a slice less the mean of its neighbours' is half the difference of two jumps.
    return float(np.hypot(*((jumps[:-1] - jumps[1:]) / 2).T).max())


def _shift_px(one: np.ndarray, other: np.ndarray, step_mm: tuple[float, float]) -> tuple[int, int]:
    """Return by how many (rows, columns) ``other`` is displaced against ``one``."""
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in one.shape))
    spectra = [np.fft.rfft2((image - image.mean()) * window) for image in (one, other)]
    correlation = np.fft.irfft2(np.conj(spectra[0]) * spectra[1], one.shape)
    reach = [
        min(int(MAX_SHIFT_MM / step), size // 2 - 1)
        for step, size in zip(step_mm, one.shape, strict=True)
    ]
    near = np.roll(correlation, reach, axis=(0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    row, col = np.unravel_index(int(near.argmax()), near.shape)
    return int(row) - reach[0], int(col) - reach[1]


def _mistriggered(heart: np.ndarray) -> float:
    if heart.shape[0] < 3:
        return 0.0
    curves = np.abs(heart - heart[0]).mean(axis=(2, 3)).T
    motion = curves.max(axis=1)
    moving = curves[motion > MIN_MOTION * np.median(motion)]
    if len(moving) < 3 or not motion.any():
        return 0.0
    scaled = moving / moving.max(axis=1, keepdims=True)
    agreement = []
    for index, curve in enumerate(scaled):
        others = np.median(np.delete(scaled, index, axis=0), axis=0)
        agreement.append(np.corrcoef(curve, others)[0, 1] if np.ptp(others) > 0 else 1.0)
    return float(np.mean(np.array(agreement) < 0.5))
