"""The torso around the heart: ellipsoids of tissue in patient coordinates, back to front."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.phantom.planes import PlaneStack

__all__ = ["Organ", "draw_torso", "paint_torso"]

Image = NDArray[np.float32]
EDGE_MM = 2.5


@dataclass(frozen=True)
class Organ:
    """An axis-parallel ellipsoid of one tissue; an infinite semi-axis makes a cylinder."""

    tissue: str
    centre_mm: tuple[float, float, float]
    semi_mm: tuple[float, float, float]


def draw_torso(rng: np.random.Generator, bmi: float) -> tuple[Organ, ...]:
    """Return a torso whose fat grows with the body-mass index (kg/m2)."""
    tube = float("inf")
    size = rng.normal(1, 0.04)
    skin = float(np.clip(4 + 1.4 * (bmi - 18), 5, 40))
    x, y = 150 * size, 100 * size
    move = rng.normal(0, 4, (6, 3))

    def at(index: int, *centre: float) -> tuple[float, float, float]:
        a, b, c = (size * np.array(centre) + move[index]).tolist()
        return a, b, c

    return (
        Organ("fat", (0, 0, 0), (x + skin, y + skin, tube)),
        Organ("muscle", (0, 0, 0), (x, y, tube)),
        Organ("fat", at(0, 5, 0, 40), (55, 70, 130)),
        Organ("lung", at(1, -82, 12, 45), (56 * size, 74 * size, 130)),
        Organ("lung", at(2, 88, 0, 40), (58 * size, 92 * size, 135)),
        Organ("liver", at(3, -55, -5, -100), (92 * size, 80 * size, 62)),
        Organ("muscle", at(4, 72, 5, -122), (66 * size, 74 * size, 60)),
        Organ("bone", (0, 70 * size, 0), (19, 17, tube)),
        Organ("blood", (27 * size, 56 * size, 0), (11, 11, tube)),
        Organ("blood", at(5, -12, -22, 75), (17, 17, 55)),
    )


def _occupancy(organ: Organ, points: Sequence[Image]) -> Image:
    """Share of the organ in each voxel, soft over `EDGE_MM`, in [0, 1]."""
    square = np.zeros_like(points[0])
    smallest = min(organ.semi_mm)
    for axis, centre, semi in zip(points, organ.centre_mm, organ.semi_mm, strict=True):
        if np.isfinite(semi):
            square += np.square((axis - np.float32(centre)) / np.float32(semi))
    np.sqrt(square, out=square)
    square *= np.float32(-smallest / EDGE_MM)
    square += np.float32(smallest / EDGE_MM + 0.5)
    return np.clip(square, 0, 1, out=square)


def paint_torso(
    organs: Sequence[Organ],
    stack: PlaneStack,
    shift_mm: NDArray[np.float64],
    signals: Sequence[Mapping[str, float]],
) -> list[Image]:
    """Return one (Z, Y, X) stack per signal table; ``shift_mm`` is each slice's, (Z, 2)."""
    size = stack.size_px
    images = [np.zeros((len(stack.origin_mm), size, size), np.float32) for _ in signals]
    # Slice by slice: one image stays in the processor's cache, a stack does not.
    for z in range(len(stack.origin_mm)):
        points = stack.points(z, shift_mm[z])
        for organ in organs:
            share = _occupancy(organ, points)
            for image, signal in zip(images, signals, strict=True):
                image[z] += share * (np.float32(signal[organ.tissue]) - image[z])
    return images
