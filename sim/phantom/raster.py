"""From surfaces to voxels: radius tables sampled per slice, soft occupancies, tissues painted over.

Axes: T frames, Z slices, K sub-levels within a slice's thickness, A angles, P pixels of the box
around the heart, Y rows, X columns.
"""

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Layer:
    """A star-shaped region with a soft edge at one slice.

    Attributes
    ----------
    offset : ndarray
        (T, A); a pixel at distance d lies in the region to ``clip(offset - slope d, 0, ceiling)``.
    slope, ceiling : ndarray
        (T, 1): inverse edge width, 1/mm, and the share of the slice's thickness that it reaches.
    """

    offset: Image
    slope: Image
    ceiling: Image

    def share(self, index: NDArray[np.intp], distance: Image) -> Image:
        """Return occupancies, (T, P), of pixels in polar coordinates."""
        share = np.take(self.offset, index, axis=1)
        share -= self.slope * distance
        np.minimum(share, self.ceiling, out=share)
        return np.maximum(share, 0, out=share)


def _layer(radius: Image, like: Image, edge_mm: float, margin_mm: float = 0.0) -> Layer:
    """Average a surface (T, K, A) over the slice's thickness.

    A wall that slants through the slice is a ramp as wide as its radius varies; all surfaces from
    the epicardium outwards take its width (``like``), so that where they coincide they cancel.
    """
    open_levels = like.max(axis=2) > 0
    count = np.maximum(open_levels.sum(axis=1), 1)[:, None].astype(np.float32)
    mean = radius.sum(axis=1) / count
    size = like.mean(axis=2)
    largest = size.max(axis=1)
    smallest = np.where(open_levels, size, np.inf).min(axis=1)
    spread = (largest - np.minimum(smallest, largest))[:, None]
    slope = (1 / (edge_mm + spread)).astype(np.float32)
    ceiling = open_levels.mean(axis=1, dtype=np.float32)[:, None]
    return Layer((mean + np.float32(margin_mm)) * slope + np.float32(0.5), slope, ceiling)


def _share(radius: Image, distance: Image, edge_mm: float) -> Image:
    """Occupancy of a disc or half-line, soft over ``edge_mm``, in [0, 1]; empty at radius 0."""
    share = (radius - distance) * np.float32(1 / edge_mm)
    share += np.float32(0.5)
    # Without this a region of radius 0 would still cover half of the pixel on the axis.
    np.minimum(share, radius, out=share)
    return np.clip(share, 0, 1, out=share)


def _blend(canvas: Image, share: Image, signal: np.float32) -> None:
    canvas += share * (signal - canvas)


@dataclass(frozen=True)
class Box:
    """The pixels of one slice that the heart can reach, flattened to P, in polar coordinates."""

    rows: slice
    columns: slice
    across: Image
    down: Image
    distance: Image
    theta: Image
    index: NDArray[np.intp]


def _box(centre_px: NDArray[np.float64], reach_mm: float, free_mm: float, stack: PlaneStack) -> Box:
    """Return the box around the LV axis; the RV is on its left, so it is narrower on the right."""
    reach, free = reach_mm / stack.spacing_mm, free_mm / stack.spacing_mm
    ends = [centre_px[0] - reach, centre_px[0] + free, centre_px[1] - reach, centre_px[1] + reach]
    left, right, top, bottom = (int(np.clip(round(end), 0, stack.size_px)) for end in ends)
    rows, columns = slice(top, bottom + 1), slice(left, right + 1)
    x = (np.arange(stack.size_px)[columns] - centre_px[0]) * stack.spacing_mm
    y = (np.arange(stack.size_px)[rows] - centre_px[1]) * stack.spacing_mm
    across = np.tile(x.astype(np.float32), len(y))
    down = np.repeat(y.astype(np.float32), len(x))
    theta = np.arctan2(-across, -down)
    index = np.round(theta * np.float32(NUM_ANGLES / (2 * np.pi))).astype(np.intp) % NUM_ANGLES
    return Box(rows, columns, across, down, np.hypot(across, down), theta, index)


def paint_short_axis(
    canvas: Image,
    beat: Beat,
    pose: Pose,
    stack: PlaneStack,
    shift_mm: NDArray[np.float64],
    signals: Mapping[str, float],
    *,
    scar: Scar = (),
    label_frames: Sequence[int] = (),
    sublevels: int,
    edge_mm: float,
) -> NDArray[np.uint8]:
    """Paint the heart into ``canvas`` (T, Z, Y, X); return labels of some frames, (F, Z, Y, X).

    A voxel's label is the region that holds most of it; slices whose middle lies above the mitral
    plane at that frame have none. ``signals`` are relative to blood and may be negative.
    """
    level = (stack.origin_mm - pose.base) @ pose.axis
    inside = (np.arange(sublevels) + 0.5) / sublevels - 0.5
    surfaces = sample_surfaces(beat, level[:, None] + stack.thickness_mm * inside[None, :])
    centre = stack.pixel(pose.base) + shift_mm / stack.spacing_mm
    margin = FAT_MM + 2 * edge_mm
    labels = np.full((len(label_frames), *canvas.shape[1:]), BACKGROUND, np.uint8)
    for z in range(len(level)):
        if not surfaces.epi[:, z].any():
            continue
        reach = float(surfaces.rv_epi[:, z].max()) + margin
        box = _box(centre[z], reach, float(surfaces.epi[:, z].max()) + margin, stack)
        view = canvas[:, z, box.rows, box.columns]
        flat = view.reshape(len(view), -1)
        shares = _paint_slice(flat, surfaces, z, beat.twist_rad, box, signals, scar, edge_mm)
        view[...] = flat.reshape(view.shape)
        for row, frame in enumerate(label_frames):
            if surfaces.sigma[frame, z, sublevels // 2] >= 0:
                flat_labels = _label(*(share[frame] for share in shares))
                labels[row, z, box.rows, box.columns] = flat_labels.reshape(view.shape[1:])
    return labels


def _label(in_lv: Image, in_epi: Image, in_rv: Image) -> NDArray[np.uint8]:
    outside = np.where(in_rv >= 0.5, RV, BACKGROUND)
    return np.where(in_lv >= 0.5, LV, np.where(in_epi >= 0.5, MYO, outside)).astype(np.uint8)


def _paint_slice(
    flat: Image,
    surfaces: Surfaces,
    z: int,
    twist: NDArray[np.float64],
    box: Box,
    signals: Mapping[str, float],
    scar: Scar,
    edge_mm: float,
) -> tuple[Image, Image, Image]:
    """Paint one slice, (T, P) in place; return the shares of LV, epicardium and RV.

    The surfaces are nested, so the tissues' shares are differences of occupancies, and each surface
    adds its occupancy times the step of signal across it.
    """
    endo, epi, rv, rv_epi = (
        table[:, z] for table in (surfaces.endo, surfaces.epi, surfaces.rv, surfaces.rv_epi)
    )
    middle = endo.shape[1] // 2
    sigma = surfaces.sigma[:, z, middle]
    layers = (
        _layer(rv_epi, epi, edge_mm, FAT_MM),
        _layer(rv_epi, epi, edge_mm),
        _layer(rv, epi, edge_mm),
        _layer(epi, epi, edge_mm),
        _layer(endo, endo, edge_mm),
    )
    fat, in_rv_epi, in_rv, in_epi, in_lv = (
        layer.share(box.index, box.distance) for layer in layers
    )
    muscle, blood = np.float32(signals["myocardium"]), np.float32(signals["blood"])
    rv_blood = blood * np.float32(0.96)
    wall = _wall_signal(signals, scar, endo[:, middle], epi[:, middle], box, float(sigma[0]))
    flat += fat * (np.float32(signals["fat"]) - flat)
    flat += in_rv_epi * (muscle - np.float32(signals["fat"]))
    flat += in_rv * (rv_blood - muscle)
    flat += in_epi * (wall - rv_blood)
    flat += in_lv * (blood - wall)
    papillary = _papillary_share(endo[:, middle], sigma, twist, box, edge_mm)
    if papillary is not None:
        flat += papillary * (muscle - flat)
    return in_lv, in_epi, in_rv


def _wall_signal(
    signals: Mapping[str, float], scar: Scar, endo: Image, epi: Image, box: Box, sigma: float
) -> Image | np.float32:
    """Signal of the LV wall, healthy or with scar mixed in; radii (T, A)."""
    healthy = np.float32(signals["myocardium"])
    if not scar:
        return healthy
    inner, outer = np.take(endo, box.index, axis=1), np.take(epi, box.index, axis=1)
    depth = np.clip((box.distance - inner) / np.maximum(outer - inner, 0.5), 0, 1)
    intensity = scar_intensity(scar, box.theta, np.full(1, sigma, np.float32), depth).astype(
        np.float32
    )
    return healthy + (np.float32(signals["scar"]) - healthy) * intensity


def _papillary_share(
    endo: Image, sigma: Image, twist: NDArray[np.float64], box: Box, edge_mm: float
) -> Image | None:
    """Occupancy of the two muscles at one slice's mid-level, (T, P); None where there are none."""
    size = np.sin(np.pi * np.clip((sigma - 0.2) / 0.6, 0, 1)).astype(np.float32)
    if not size.any():
        return None
    shares = []
    for angle, radius_mm in PAPILLARY:
        theta = angle + twist * sigma
        index = np.round(theta * NUM_ANGLES / (2 * np.pi)).astype(np.intp) % NUM_ANGLES
        rim = endo[np.arange(len(sigma)), index]
        radius = np.minimum(radius_mm * size, 0.3 * rim)
        across = box.across + (0.66 * rim * np.sin(theta)).astype(np.float32)[:, None]
        down = box.down + (0.66 * rim * np.cos(theta)).astype(np.float32)[:, None]
        across *= across
        down *= down
        across += down
        shares.append(_share(radius[:, None], np.sqrt(across, out=across), edge_mm))
    return np.maximum(*shares)


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
