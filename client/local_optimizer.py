"""How a step moves a hospital's weights: AdamW, or plain gradient descent.

The arithmetic is torch's, called as functions: the first object of ``torch.optim`` in a process
imports torch's compiler, which takes longer than many a hospital's first steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

__all__ = ["LocalOptimizer"]


@dataclass(frozen=True)
class _Moments:
    """What AdamW remembers of one parameter; ``step`` is a tensor, as the fused kernel counts."""

    mean: Tensor
    square: Tensor
    step: Tensor


class LocalOptimizer:
    """Moves parameters by their gradients, with decay where zero is a natural value.

    Parameters
    ----------
    rule : {"adamw", "sgd"}
        AdamW as torch has it (Loshchilov and Hutter, Decoupled weight decay regularization, ICLR
        2019; betas .9 and .999, eps 1e-8), or descent without momentum.
    parameters : iterable of Tensor
        Biases, norms and baseline hazards, which have one axis, are not decayed.
    weight_decay : float
        Of the others, >= 0.
    """

    def __init__(
        self, rule: Literal["adamw", "sgd"], parameters: Iterable[Tensor], weight_decay: float
    ) -> None:
        self._move = {"adamw": self._adamw, "sgd": _sgd}[rule]
        self._moments: dict[Tensor, _Moments] = {}
        self._groups: list[tuple[list[Tensor], float]] = [([], weight_decay), ([], 0.0)]
        for parameter in parameters:
            self._groups[parameter.ndim <= 1][0].append(parameter)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient, at a learning rate >= 0."""
        for group, decay in self._groups:
            moved = [parameter for parameter in group if parameter.grad is not None]
            grads = [parameter.grad for parameter in moved if parameter.grad is not None]
            if moved:
                self._move(moved, grads, learning_rate, decay)

    def _adamw(
        self, parameters: list[Tensor], grads: list[Tensor], learning_rate: float, decay: float
    ) -> None:
        for parameter in parameters:
            if parameter not in self._moments:
                self._moments[parameter] = _no_moments(parameter)
        moments = [self._moments[parameter] for parameter in parameters]
        adamw(
            parameters,
            grads,
            [moment.mean for moment in moments],
            [moment.square for moment in moments],
            [],
            [moment.step for moment in moments],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=decay,
            eps=1e-8,
            maximize=False,
        )


def _no_moments(parameter: Tensor) -> _Moments:
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return _Moments(torch.zeros_like(parameter), torch.zeros_like(parameter), step)


def _sgd(parameters: list[Tensor], grads: list[Tensor], learning_rate: float, decay: float) -> None:
    sgd(
        parameters,
        grads,
        [],
        weight_decay=decay,
        momentum=0.0,
        lr=learning_rate,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
