"""From surfaces to voxels: radius tables sampled per slice, soft occupancies, tissues painted over.

Axes: T frames, Z slices, K sub-levels within a slice's thickness, A angles, P pixels of the box
around the heart, Y rows, X columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared_models.labels import BACKGROUND, LV, MYO, RV
from sim.phantom.geometry import NUM_ANGLES
from sim.phantom.motion import Beat
from sim.phantom.planes import PlaneStack, Pose
from sim.phantom.scar import Scar, scar_intensity

__all__ = ["Surfaces", "paint_long_axis", "paint_short_axis", "sample_surfaces"]

Image = NDArray[np.float32]
#: Papillary muscles: angle (AHA sense), radius, mm.
PAPILLARY = ((5.35, 4.6), (3.75, 4.2))
ATRIAL_WALL_MM = 2.0
FAT_MM = 3.0


@dataclass(frozen=True)
class Surfaces:
    """Radii of four surfaces at chosen levels, each (T, ..., A), mm; ``sigma`` is (T, ...)."""

    endo: Image
    epi: Image
    rv: Image
    rv_epi: Image
    sigma: Image


def _at_levels(table: NDArray[np.float64], position: NDArray[np.float64]) -> Image:
    """Interpolate (T, S, A) linearly at (T, ...) fractional levels; 0 beyond the last."""
    last = table.shape[1] - 1
    clipped = np.clip(position, 0, last)
    low = np.minimum(clipped.astype(np.intp), last - 1)
    share = (clipped - low)[..., None].astype(np.float32)
    frame = np.arange(table.shape[0]).reshape(-1, *([1] * (position.ndim - 1)))
    table32 = table.astype(np.float32)
    lower, upper = table32[frame, low], table32[frame, low + 1]
    upper -= lower
    upper *= share
    upper += lower
    upper[position > last + 0.5] = 0
    return upper


def sample_surfaces(
    beat: Beat, depth_mm: NDArray[np.float64], angles: NDArray[np.intp] | None = None
) -> Surfaces:
    """Return the surfaces at depths below the end-diastolic mitral plane, mm, of any shape (...).

    Above the (moving) mitral plane they become the atria: blood in a thin wall that closes after
    half an LV length.
    """
    length0 = beat.length_mm[np.argmax(beat.length_mm)]
    room = (-1, *([1] * depth_mm.ndim))
    length = beat.length_mm.reshape(room)
    sigma = (depth_mm[None] - (length0 - length)) / length
    position = sigma * length / beat.level_mm.reshape(room) - 0.5
    pick = slice(None) if angles is None else angles
    tables = (beat.endo_mm, beat.epi_mm, beat.rv_mm, beat.rv_epi_mm)
    endo, epi, rv, rv_epi = (_at_levels(table[:, :, pick], position) for table in tables)
    above = sigma < 0
    if above.any():
        close = np.sqrt(np.clip(1 - np.square(sigma[above] / 0.5), 0, None))[:, None]
        close = close.astype(np.float32)
        chamber = rv[above] - epi[above]
        endo[above] *= close
        epi[above] = endo[above] + ATRIAL_WALL_MM * close
        rv[above] = epi[above] + chamber * close
        rv_epi[above] = rv[above] + ATRIAL_WALL_MM * close
    return Surfaces(endo, epi, rv, rv_epi, sigma.astype(np.float32))


def _share(radius: Image, distance: Image, edge_mm: float) -> Image:
    """Occupancy of a star-shaped region, soft over ``edge_mm``, in [0, 1]; empty at radius 0."""
    share = (radius - distance) * np.float32(1 / edge_mm)
    share += np.float32(0.5)
    # Without this a region of radius 0 would still cover half of the pixel on the axis.
    np.minimum(share, radius, out=share)
    return np.clip(share, 0, 1, out=share)


def _blend(canvas: Image, share: Image, signal: Image | np.float32) -> None:
    canvas += share * (signal - canvas)


def _papillary_share(
    endo: Image, sigma: Image, twist: NDArray[np.float64], xy: tuple[Image, Image], edge_mm: float
) -> Image:
    """Occupancy of the two muscles at one slice's mid-level, (T, P); ``endo`` (T, A)."""
    size = np.sin(np.pi * np.clip((sigma - 0.2) / 0.6, 0, 1)).astype(np.float32)
    share = np.zeros((len(sigma), xy[0].size), np.float32)
    if not size.any():
        return share
    for angle, radius_mm in PAPILLARY:
        theta = angle + twist * sigma
        index = np.round(theta * NUM_ANGLES / (2 * np.pi)).astype(np.intp) % NUM_ANGLES
        rim = endo[np.arange(len(sigma)), index]
        radius = np.minimum(radius_mm * size, 0.3 * rim)
        reach = 0.66 * rim
        across = xy[0] + (reach * np.sin(theta)).astype(np.float32)[:, None]
        down = xy[1] + (reach * np.cos(theta)).astype(np.float32)[:, None]
        distance = np.sqrt(across * across + down * down)
        share = np.maximum(share, _share(radius[:, None], distance, edge_mm))
    return share


def _muscle_signal(
    signals: Mapping[str, float], scar: Scar, inner: Image, outer: Image, polar: tuple, sigma: float
) -> Image | np.float32:
    """Signal of the LV wall, healthy or with scar mixed in; radii (T, P)."""
    healthy = np.float32(signals["myocardium"])
    if not scar:
        return healthy
    distance, theta = polar
    depth = (distance - inner) / np.maximum(outer - inner, 0.5)
    intensity = scar_intensity(scar, theta, np.float32(sigma), np.clip(depth, 0, 1))
    return healthy + (np.float32(signals["scar"]) - healthy) * intensity.astype(np.float32)


def paint_short_axis(
    canvas: Image,
    beat: Beat,
    pose: Pose,
    stack: PlaneStack,
    shift_mm: NDArray[np.float64],
    signals: Mapping[str, float],
    *,
    scar: Scar = (),
    sublevels: int,
    edge_mm: float,
) -> NDArray[np.uint8]:
    """Paint the heart into ``canvas`` (T, Z, Y, X), and return its labels, (T, Z, Y, X).

    A voxel's label is the region that holds most of it; slices whose middle lies above the mitral
    plane at that frame have none. ``signals`` are relative to blood and may be negative.
    """
    level = (stack.origin_mm - pose.base) @ pose.axis
    inside = (np.arange(sublevels) + 0.5) / sublevels - 0.5
    depth = level[:, None] + stack.thickness_mm * inside[None, :]
    surfaces = sample_surfaces(beat, depth)
    middle = sublevels // 2
    centre = stack.pixel(pose.base) + shift_mm / stack.spacing_mm
    reach = float(surfaces.rv_epi.max()) + FAT_MM + 2 * edge_mm
    labels = np.full(canvas.shape, BACKGROUND, np.uint8)
    for z in range(len(level)):
        low = np.clip(np.floor(centre[z] - reach / stack.spacing_mm).astype(int), 0, None)
        high = np.ceil(centre[z] + reach / stack.spacing_mm).astype(int) + 1
        # To the right of the septum there is no RV: the box ends with the free wall.
        free_mm = float(surfaces.epi[:, z].max()) + FAT_MM + 2 * edge_mm
        high[0] = int(np.ceil(centre[z, 0] + free_mm / stack.spacing_mm)) + 1
        rows, columns = slice(low[1], high[1]), slice(low[0], high[0])
        box = canvas[:, z, rows, columns]
        y, x = np.meshgrid(
            ((np.arange(box.shape[1]) + low[1] - centre[z, 1]) * stack.spacing_mm),
            ((np.arange(box.shape[2]) + low[0] - centre[z, 0]) * stack.spacing_mm),
            indexing="ij",
        )
        xy = (x.astype(np.float32).ravel(), y.astype(np.float32).ravel())
        flat = box.reshape(len(box), -1)
        flat_labels = _paint_slice(
            flat, surfaces, z, middle, beat.twist_rad, xy, signals, scar, edge_mm
        )
        box[...] = flat.reshape(box.shape)
        labels[:, z, rows, columns] = flat_labels.reshape(box.shape)
    return labels


def _paint_slice(
    flat: Image,
    surfaces: Surfaces,
    z: int,
    middle: int,
    twist: NDArray[np.float64],
    xy: tuple[Image, Image],
    signals: Mapping[str, float],
    scar: Scar,
    edge_mm: float,
) -> NDArray[np.uint8]:
    distance = np.sqrt(np.square(xy[0]) + np.square(xy[1]))
    theta = np.arctan2(-xy[0], -xy[1])
    index = np.round(theta * np.float32(NUM_ANGLES / (2 * np.pi))).astype(np.intp) % NUM_ANGLES
    sigma = surfaces.sigma[:, z, middle]
    radii = [
        np.take(table[:, z], index, axis=-1)
        for table in (surfaces.endo, surfaces.epi, surfaces.rv, surfaces.rv_epi)
    ]
    inner, outer = radii[0][:, middle].copy(), radii[1][:, middle].copy()
    fat_radius = radii[3][:, middle] + FAT_MM * (radii[3][:, middle] > 0)
    fat = _share(fat_radius, distance, 2 * edge_mm)
    in_lv, in_epi, in_rv, in_rv_epi = (
        _share(radius, distance, edge_mm).mean(axis=1) for radius in radii
    )
    blood = np.float32(signals["blood"])
    _blend(flat, fat, np.float32(signals["fat"]))
    _blend(flat, in_rv_epi, np.float32(signals["myocardium"]))
    _blend(flat, in_rv, blood * np.float32(0.96))
    wall = _muscle_signal(signals, scar, inner, outer, (distance, theta), float(sigma[0]))
    _blend(flat, in_epi, wall)
    _blend(flat, in_lv, blood)
    muscles = _papillary_share(surfaces.endo[:, z, middle], sigma, twist, xy, edge_mm)
    _blend(flat, muscles, np.float32(signals["myocardium"]))
    labels = np.where(
        in_lv >= 0.5, LV, np.where(in_epi >= 0.5, MYO, np.where(in_rv >= 0.5, RV, BACKGROUND))
    ).astype(np.uint8)
    labels[sigma < 0] = BACKGROUND
    return labels


def paint_long_axis(
    canvas: Image,
    beat: Beat,
    pose: Pose,
    stack: PlaneStack,
    angle: float,
    signals: Mapping[str, float],
    edge_mm: float,
) -> None:
    """Paint a long-axis view, (T, 1, Y, X), whose left side lies at ``angle`` (AHA sense)."""
    column, row = stack.pixel(pose.base)[0]
    depth = (row - np.arange(stack.size_px)) * stack.spacing_mm
    offset = (np.arange(stack.size_px) - column) * stack.spacing_mm
    step = NUM_ANGLES / (2 * np.pi)
    sides = np.round(np.array([angle, angle + np.pi]) * step).astype(np.intp) % NUM_ANGLES
    surfaces = sample_surfaces(beat, depth, sides)
    which = (offset > 0).astype(np.intp)
    distance = np.abs(offset).astype(np.float32)
    image = canvas[:, 0]
    layers = (
        (surfaces.rv_epi + FAT_MM * (surfaces.rv_epi > 0), "fat"),
        (surfaces.rv_epi, "myocardium"),
        (surfaces.rv, "blood"),
        (surfaces.epi, "myocardium"),
        (surfaces.endo, "blood"),
    )
    for radius, tissue in layers:
        share = _share(radius[:, :, which], distance, edge_mm)
        _blend(image, share, np.float32(signals[tissue]))
