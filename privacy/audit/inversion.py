"""What image or row went into a gradient? Reconstruction from one released update.

A fully connected first layer tells it outright: for one patient ``dL/dW = dL/db x^T``, so a row of
the weights' gradient divided by the bias' is the input. Otherwise an image is sought whose gradient
resembles the released one.

References
----------
Zhu, Liu & Han, Deep Leakage from Gradients, NeurIPS 2019 (squared distance, L-BFGS); Geiping et
al., Inverting Gradients, NeurIPS 2020 (cosine, total variation); Phong et al., IEEE TIFS 2018 (the
first layer).
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["invert_first_layer", "match_gradients", "peak_signal_to_noise"]

GradientOf = Callable[[Tensor], Sequence[Tensor]]
# Of the peak: below, the images are the same for float64.
SMALLEST_ERROR = 1e-15


def peak_signal_to_noise(found: Tensor, truth: Tensor, peak: float = 1.0) -> float:
    """Return 10 log10(peak^2 / mean squared error), dB, at most 300; higher is closer.

    What was found is first cut to [0, peak], where the truth is known to lie.
    """
    error = (found.double().clamp(0, peak) - truth.double()).square().mean().sqrt().item()
    return 20 * math.log10(1 / max(error / peak, SMALLEST_ERROR))


def invert_first_layer(weight_gradient: Tensor, bias_gradient: Tensor) -> Tensor:
    """Return the input of a fully connected layer from its gradient, (F,).

    Parameters
    ----------
    weight_gradient, bias_gradient : Tensor
        (H, F) and (H,), of one patient (of several, a weighted mean of their inputs comes out).

    Raises
    ------
    ValueError
        If the bias has no gradient: then no unit saw anything.
    """
    row = int(bias_gradient.abs().argmax())
    if bias_gradient[row] == 0:
        raise ValueError("the bias gradient is zero everywhere; nothing can be divided by it")
    return weight_gradient[row] / bias_gradient[row]


def match_gradients(
    gradient_of: GradientOf,
    released: Sequence[Tensor],
    start: Tensor,
    *,
    distance: Literal["squared", "cosine"] = "squared",
    steps: int = 200,
    variation: float = 0.0,
) -> Tensor:
    """Seek an input whose gradient resembles the released one.

    Parameters
    ----------
    gradient_of : callable
        Gradients of the weights as a differentiable function of the input (labels known to the
        attacker, which is more than most have).
    released : sequence of Tensor
        In the order of ``gradient_of``.
    start : Tensor
        (B, C, Y, X) first guess; its type is that of the search (float64 goes deeper).
    distance : str
        Sum of squared differences (an exact gradient), or 1 - cosine (one that was scaled, as by
        clipping).
    steps : int
        Outer steps of L-BFGS, 20 evaluations at most each.
    variation : float
        Weight of the total variation of the image.

    Returns
    -------
    Tensor
        The input with the smallest distance met, values in [0, 1] not enforced.
    """
    guess = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([guess], lr=1.0, history_size=50, line_search_fn="strong_wolfe")
    best, lowest = start.clone(), math.inf

    def closure() -> float:
        nonlocal best, lowest
        optimiser.zero_grad()
        value = _distance(gradient_of(guess), released, distance)
        if variation:
            value = value + variation * _total_variation(guess)
        (guess.grad,) = torch.autograd.grad(value, [guess])
        if value.item() < lowest:
            best, lowest = guess.detach().clone(), value.item()
        return value.item()

    for _ in range(steps):
        before = lowest
        optimiser.step(closure)
        if not math.isfinite(lowest) or before - lowest <= 1e-14 * abs(lowest):
            break
    return best


def _distance(found: Sequence[Tensor], released: Sequence[Tensor], kind: str) -> Tensor:
    pairs = list(zip(found, released, strict=True))
    if kind == "squared":
        return torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
    inner = torch.stack([(a * b).sum() for a, b in pairs]).sum()
    norms = [
        torch.stack([g.square().sum() for g in side]).sum().sqrt()
        for side in zip(*pairs, strict=True)
    ]
    return 1 - inner / (norms[0] * norms[1]).clamp(min=1e-30)


def _total_variation(image: Tensor) -> Tensor:
    rows = (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
    return rows + (image[..., 1:] - image[..., :-1]).abs().mean()
