"""Predictions of a network, batch by batch, without gradients."""

import torch
from torch import Tensor, nn

from shared_models.execution import Execution

__all__ = ["predict_labels", "predict_logits"]

_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


def predict_logits(
    model: nn.Module,
    images: Tensor,
    execution: Execution,
    batch_size: int = 32,
    *,
    flips: bool = False,
) -> Tensor:
    """Return the logits of a segmentation network.

    Parameters
    ----------
    model : nn.Module
        Moved to the device and to channels-last; its training mode is restored afterwards.
    images : Tensor
        (B, C, Y, X) float32.
    execution : Execution
        Device, precision, threads.
    batch_size : int
        Images at a time; GroupNorm keeps an image's result independent of its neighbours.
    flips : bool
        Average the class probabilities over the four mirror images and return their logarithm.

    Returns
    -------
    Tensor
        (B, num_classes, Y, X) float32 on the CPU.
    """
    was_training = model.training
    model.to(device=execution.device, memory_format=torch.channels_last).eval()
    try:
        with execution.active(), torch.no_grad():
            parts = [
                _predict(model, part.to(execution.device), execution, flips)
                for part in images.split(batch_size)
            ]
    finally:
        model.train(was_training)
    return torch.cat(parts)


def _predict(model: nn.Module, images: Tensor, execution: Execution, flips: bool) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    with execution.autocast():
        if not flips:
            return model(images).float().cpu().contiguous()
        views = [model(images.flip(dims)).float().softmax(1).flip(dims) for dims in _FLIPS]
    return torch.stack(views).mean(0).clamp(min=1e-12).log().cpu().contiguous()


def predict_labels(
    model: nn.Module,
    images: Tensor,
    execution: Execution,
    batch_size: int = 32,
    *,
    flips: bool = False,
) -> Tensor:
    """Return the most likely class of every pixel, (B, Y, X) uint8; see `predict_logits`."""
    # Not argmax: on a CPU, torch finds the place of a maximum faster this way.
    parts = [
        predict_logits(model, part, execution, batch_size, flips=flips)
        .max(1)
        .indices.to(torch.uint8)
        for part in images.split(batch_size)
    ]
    return torch.cat(parts)
