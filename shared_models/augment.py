"""Random variations of a batch, drawn first and applied after.

Shapes: B records, C channels, Z slices, Y rows, X columns; intensities about [0, 1]. Everything is
a few tensor operations on the whole batch, so that it costs little beside a training step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "PROGNOSIS_RANGES",
    "SEGMENTATION_RANGES",
    "Draws",
    "Ranges",
    "augment_prognosis",
    "augment_segmentation",
    "draw",
    "vary_intensity",
    "warp",
]


@dataclass(frozen=True)
class Ranges:
    """How far each variation may go.

    Attributes
    ----------
    rotation_deg : float
        Rotation in [-r, r].
    log2_scale : float
        Size multiplied by 2^s, s in [-log2_scale, log2_scale].
    shift_fraction : float
        Shift in [-f, f] of the image side, along each axis.
    flip : float
        Chance of mirroring each in-plane axis.
    log2_gamma : float
        Intensity raised to 2^g, g in [-log2_gamma, log2_gamma].
    brightness, contrast : float
        Added in [-b, b]; multiplied by [1 - c, 1 + c].
    noise_sd : float
        Standard deviation of added noise in [0, n].
    low_resolution : float
        Chance of blending in a copy at half the resolution.
    slice_drop : float
        Chance that a slice is taken away (stacks only).
    """

    rotation_deg: float = 0.0
    log2_scale: float = 0.0
    shift_fraction: float = 0.0
    flip: float = 0.0
    log2_gamma: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    noise_sd: float = 0.0
    low_resolution: float = 0.0
    slice_drop: float = 0.0


# Wide in intensity, as the M&Ms challenge taught for vendors not seen in training.
# No mirroring and no large turns: the intake brings every stack to one orientation (right ventricle
# on the left), and a network that must also know the others learns the walls much later.
SEGMENTATION_RANGES = Ranges(
    rotation_deg=25.0,
    log2_scale=0.25,
    shift_fraction=0.08,
    log2_gamma=0.5,
    brightness=0.15,
    contrast=0.25,
    noise_sd=0.05,
    low_resolution=0.25,
)
# Narrow in space: how much wall is scarred, and where, is what the network is to see. No gamma and
# no noise: over a stack of three channels they would cost as much as the network itself.
PROGNOSIS_RANGES = Ranges(
    rotation_deg=15.0,
    log2_scale=0.07,
    shift_fraction=0.04,
    brightness=0.05,
    contrast=0.1,
    slice_drop=0.1,
)


@dataclass(frozen=True)
class Draws:
    """One drawn variation for each of B records; every field is (B,) unless said otherwise."""

    rotation: Tensor
    scale: Tensor
    shift: Tensor
    """(B, 2) along X and Y, in half image sides."""
    mirror: Tensor
    """(B, 2) of -1 or 1, along X and Y."""
    gamma: Tensor
    brightness: Tensor
    contrast: Tensor
    noise_sd: Tensor
    blend: Tensor
    """Share of the half-resolution copy, in [0, 1]."""


def draw(num_records: int, ranges: Ranges, generator: torch.Generator) -> Draws:
    """Draw one variation for each record from a CPU generator."""
    u = torch.rand(num_records, 12, generator=generator)
    s = 2 * u - 1
    return Draws(
        rotation=math.radians(ranges.rotation_deg) * s[:, 0],
        scale=2.0 ** (ranges.log2_scale * s[:, 1]),
        shift=2 * ranges.shift_fraction * s[:, 2:4],
        mirror=1 - 2 * (u[:, 4:6] < ranges.flip).float(),
        gamma=2.0 ** (ranges.log2_gamma * s[:, 6]),
        brightness=ranges.brightness * s[:, 7],
        contrast=1 + ranges.contrast * s[:, 8],
        noise_sd=ranges.noise_sd * u[:, 9],
        blend=(u[:, 10] < ranges.low_resolution) * u[:, 11],
    )


def warp(images: Tensor, draws: Draws, mode: str) -> Tensor:
    """Rotate, scale, mirror and shift every record in its plane.

    Parameters
    ----------
    images : Tensor
        (B, C, Y, X) floating; zeros come in from outside.
    draws : Draws
        From `draw`.
    mode : str
        ``"bilinear"`` for intensities, ``"nearest"`` for labels.
    """
    height, width = images.shape[-2:]
    cos, sin = torch.cos(draws.rotation), torch.sin(draws.rotation)
    # The grid maps output to input, in units of half a side: enlarging divides, and the rotation of
    # an oblong image needs the ratio of the sides.
    rows = [
        torch.stack((cos, -sin * height / width), dim=1) * draws.mirror[:, :1],
        torch.stack((sin * width / height, cos), dim=1) * draws.mirror[:, 1:],
    ]
    matrix = torch.stack(rows, dim=1) / draws.scale[:, None, None]
    theta = torch.cat((matrix, draws.shift[:, :, None]), dim=2).to(images)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode=mode, align_corners=False)


def vary_intensity(images: Tensor, draws: Draws, generator: torch.Generator) -> Tensor:
    """Change contrast, gamma, brightness, sharpness and noise of images (B, C, Y, X)."""

    def per_record(values: Tensor) -> Tensor:
        return values.to(images)[:, None, None, None]

    if bool((draws.blend > 0).any()):
        coarse = functional.avg_pool2d(images, 2)
        coarse = functional.interpolate(coarse, size=images.shape[-2:], mode="bilinear")
        images = torch.lerp(images, coarse, per_record(draws.blend))
    if bool((draws.gamma != 1).any()):
        # The floor keeps the power defined; the images' own background is 0.
        images = images.clamp(min=1e-6) ** per_record(draws.gamma)
    images = images * per_record(draws.contrast) + per_record(draws.brightness)
    if bool((draws.noise_sd > 0).any()):
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        images = torch.addcmul(images, noise, per_record(draws.noise_sd))
    return images


def augment_segmentation(
    batch: Mapping[str, Tensor],
    generator: torch.Generator,
    ranges: Ranges = SEGMENTATION_RANGES,
) -> dict[str, Tensor]:
    """Vary ``images`` (B, C, Y, X) and, in space alike, ``labels`` (B, Y, X); the rest is kept."""
    images, labels = batch["images"], batch["labels"]
    draws = draw(images.shape[0], ranges, generator)
    warped = warp(labels[:, None].to(images.dtype), draws, "nearest")[:, 0]
    images = vary_intensity(warp(images, draws, "bilinear"), draws, generator)
    images = images.contiguous(memory_format=torch.channels_last)
    return {**batch, "images": images, "labels": warped.to(labels.dtype)}


def augment_prognosis(
    batch: Mapping[str, Tensor],
    generator: torch.Generator,
    ranges: Ranges = PROGNOSIS_RANGES,
) -> dict[str, Tensor]:
    """Vary ``images`` (B, C, Z, Y, X) and ``slice_present`` (B, Z); the rest is kept.

    All slices and channels of a patient move alike. A patient keeps at least one slice.
    """
    images, present = batch["images"], batch["slice_present"]
    draws = draw(images.shape[0], ranges, generator)
    flat = vary_intensity(warp(images.flatten(1, 2), draws, "bilinear"), draws, generator)
    kept = torch.rand(present.shape, generator=generator) >= ranges.slice_drop
    dropped = present * kept.to(present)
    some_left = dropped.flatten(1).any(dim=1, keepdim=True)
    return {
        **batch,
        "images": flat.unflatten(1, tuple(images.shape[1:3])),
        "slice_present": torch.where(some_left, dropped, present),
    }
