"""Soft Dice plus cross-entropy, of each image alone.

Shapes: B images, K classes (background first), Y rows, X columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["IGNORE", "dice_cross_entropy"]

IGNORE = 255
"""Label of a pixel that nobody annotated; it counts neither in the loss nor in its gradient."""


def dice_cross_entropy(
    logits: Tensor | Sequence[Tensor],
    labels: Tensor,
    *,
    smooth: float = 1.0,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
) -> Tensor:
    """Return the loss of each image; with several logits, weighted 1, 1/2, 1/4, ...

    Parameters
    ----------
    logits : Tensor or sequence of Tensor
        (B, K, Y, X); or, for deep supervision, finest first, each at 1/s of the labels'
        resolution for an integer s. The weights are divided by their sum.
    labels : Tensor
        (B, Y, X), integers 0..K-1 or `IGNORE`; every s-th pixel is taken for coarser logits.
    smooth : float
        Added to both sides of the Dice fraction, pixels. With 1 a class that an image lacks costs
        nothing when it is not predicted, and has a usable gradient when it is.
    dice_weight, cross_entropy_weight : float
        Weights of the two terms.

    Returns
    -------
    Tensor
        (B,) float32, >= 0; lower is better; 0 for an image without any annotated pixel.

    References
    ----------
    Milletari et al., V-Net, 3DV 2016 (soft Dice); Isensee et al., Nature Methods 2021 (the sum).
    """
    levels = [logits] if isinstance(logits, Tensor) else list(logits)
    weights = [0.5**index for index in range(len(levels))]
    total = levels[0].new_zeros(len(labels), dtype=torch.float32)
    for weight, level in zip(weights, levels, strict=True):
        step = labels.shape[-1] // level.shape[-1]
        one = _one_level(
            level, labels[:, ::step, ::step], smooth, dice_weight, cross_entropy_weight
        )
        total = total + weight / sum(weights) * one
    return total


def _one_level(
    logits: Tensor, labels: Tensor, smooth: float, dice_weight: float, cross_entropy_weight: float
) -> Tensor:
    """Return ``1 - mean soft Dice of the foreground + cross-entropy`` of each image.

    The sums run over one image and not over the batch (as nnU-Net's do), so that the gradient of a
    patient does not depend on who else was drawn.
    """
    log_p = functional.log_softmax(logits.float().flatten(2), dim=1)
    pixels = labels.flatten(1)
    classes = torch.arange(log_p.shape[1], device=labels.device, dtype=labels.dtype)
    # A comparison and not one_hot: the same code runs under vmap, and IGNORE matches no class.
    target = (pixels[:, None] == classes[:, None]).to(log_p.dtype)
    annotated = target.sum(dim=1)
    num_annotated = annotated.sum(dim=1)
    loss = log_p.new_zeros(log_p.shape[0])
    if cross_entropy_weight:
        summed = -(log_p * target).sum(dim=(1, 2))
        loss = loss + cross_entropy_weight * summed / num_annotated.clamp(min=1)
    if dice_weight:
        p = log_p.exp() * annotated[:, None]
        shared = (p * target).sum(dim=2)[:, 1:]
        total = p.sum(dim=2)[:, 1:] + target.sum(dim=2)[:, 1:]
        dice = (2 * shared + smooth) / (total + smooth)
        loss = loss + dice_weight * (1 - dice.mean(dim=1))
    return loss * (num_annotated > 0)
