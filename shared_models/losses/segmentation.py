"""Soft Dice plus cross-entropy, of each image alone.

Shapes: B images, K classes (background first), Y rows, X columns.
"""

from collections.abc import Sequence
from typing import Any

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
    weights = (smooth, dice_weight, cross_entropy_weight)
    return _DiceCrossEntropy.apply(logits.float().flatten(2), labels.flatten(1).long(), *weights)[0]


class _DiceCrossEntropy(torch.autograd.Function):
    """``1 - mean soft Dice of the foreground + cross-entropy`` of each image.

    The sums run over one image and not over the batch (as nnU-Net's do), so that the gradient of a
    patient does not depend on who else was drawn.

    The gradient is written out: with p the softmax, y the label, d_k = (2 S_k + s) / (T_k + s) the
    Dice of class k, and dL/dp_k = A_k [y = k] + B_k,

        dL/dz_k = p_k (B_k - sum_j p_j B_j - A_y p_y + c) + [y = k] (A_y p_y - c)

    with c the weight of the cross-entropy over the annotated pixels. Three passes over the logits;
    autograd needs a dozen, which a training step on a CPU feels.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Tensor, labels: Tensor, smooth: float, dice_weight: float, ce_weight: float
    ) -> tuple[Tensor, ...]:
        num_classes = logits.shape[1]
        annotated = (labels < num_classes).to(logits.dtype)
        # An unannotated pixel counts as background below, with weight 0.
        known = torch.where(labels < num_classes, labels, 0)
        log_p = functional.log_softmax(logits, dim=1)
        log_p_label = log_p.gather(1, known[:, None])[:, 0] * annotated
        p = log_p.exp()
        p_label = log_p_label.exp() * annotated
        zeros = logits.new_zeros(logits.shape[:2])
        shared = zeros.scatter_add(1, known, p_label)[:, 1:]
        expert = zeros.scatter_add(1, known, annotated)[:, 1:]
        total = torch.bmm(p, annotated[:, :, None])[:, 1:, 0] + expert + smooth
        dice = (2 * shared + smooth) / total
        num_annotated = annotated.sum(dim=1)
        some = (num_annotated > 0).to(logits.dtype)
        per_pixel = ce_weight * some / num_annotated.clamp(min=1)
        loss = dice_weight * some * (1 - dice.mean(dim=1)) - per_pixel * log_p_label.sum(dim=1)
        scale = (dice_weight / (num_classes - 1)) * some[:, None] / total
        return loss, p, known, annotated, p_label, -2 * scale, scale * dice, per_pixel

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        p, known, annotated, p_label, a, b, per_pixel = ctx.saved_tensors
        no_background = a.new_zeros(a[:, :1].shape)
        a, b = torch.cat((no_background, a), dim=1), torch.cat((no_background, b), dim=1)
        pull = a.gather(1, known) * p_label - per_pixel[:, None] * annotated
        shift = torch.bmm(b[:, None], p)[:, 0] * annotated + pull
        weight = grad[:, None] * annotated
        dz = p * (b[:, :, None] * weight[:, None] - (shift * grad[:, None])[:, None])
        dz = dz.scatter_add(1, known[:, None], (pull * grad[:, None])[:, None])
        return dz, None, None, None, None
