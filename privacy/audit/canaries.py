"""Marked patients for the one-run audit: each pulls at one weight of its own, as hard as it can.

The strongest patient for DP-SGD is one whose clipped gradient no other patient's resembles. A
canary's loss is ``strength * w_c`` for one coordinate c of the weights, so its gradient is
``strength e_c``, and what it adds to the released sum of a step is ``clip_norm e_c``: the whole of
what one patient may add. No other canary adds to that coordinate. It goes through the same
sampling, clipping and noise as a patient; the score is what was released at its coordinate, summed
over the steps, which is the likelihood ratio of a Gaussian mechanism up to its scale.

Where training takes gradients apart layer by layer, a loss that reaches for a weight goes past the
layers; `CanaryNetwork` puts the canaries' weights into a layer of their own beside the network.

References
----------
Nasr et al., Tight Auditing of Differentially Private Machine Learning, USENIX Security 2023 (Dirac
canaries); Steinke, Nasr & Jagielski, NeurIPS 2023, section 6.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "CANARY",
    "CanaryNetwork",
    "add_canaries",
    "canary_loss",
    "choose_coordinates",
    "flip_coins",
    "score_updates",
]

CANARY = "canary"
"""Name of the record that holds each patient's coordinate, int64; -1 for a real patient."""

PatientLoss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def flip_coins(num_canaries: int, rng: np.random.Generator) -> np.ndarray:
    """Return which canaries are in, (m,) bool, each with probability one half."""
    return rng.random(num_canaries) < 0.5


def choose_coordinates(model: nn.Module, num_canaries: int, rng: np.random.Generator) -> np.ndarray:
    """Return a weight for every canary, (m,) distinct int64 places in the flattened weights.

    The weights are flattened in the order of ``model.named_parameters()``, those that are trained.

    Raises
    ------
    ValueError
        If there are fewer weights than canaries.
    """
    size = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if size < num_canaries:
        raise ValueError(f"{num_canaries} canaries need as many weights; the network has {size}")
    return rng.choice(size, num_canaries, replace=False).astype(np.int64)


def add_canaries(
    patients: Mapping[str, Tensor], coordinates: np.ndarray, included: np.ndarray
) -> dict[str, Tensor]:
    """Return the patients and behind them the canaries that are in.

    A canary's own records are copies of real patients' (they must only be usable: its loss does not
    read them).

    Parameters
    ----------
    patients : mapping of str to Tensor
        (N, ...) each, N >= 1.
    coordinates, included : ndarray
        (m,), from `choose_coordinates` and `flip_coins`.
    """
    number = len(next(iter(patients.values())))
    inside = torch.from_numpy(coordinates[included])
    rows = torch.cat((torch.arange(number), torch.arange(len(inside)) % number))
    records = {name: values[rows] for name, values in patients.items()}
    records[CANARY] = torch.cat((torch.full((number,), -1, dtype=torch.int64), inside))
    return records


def canary_loss(loss_fn: PatientLoss, strength: float) -> PatientLoss:
    """Return a loss that is a canary's own where the record says so, else ``loss_fn``.

    Parameters
    ----------
    loss_fn : callable
        (model, batch of P patients) -> (P,); it is not shown the canaries' coordinates.
    strength : float
        Norm of a canary's gradient before clipping; above the clipping norm.
    """

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        coordinates = batch[CANARY]
        others = {name: values for name, values in batch.items() if name != CANARY}
        trained = [weight.reshape(-1) for weight in model.parameters() if weight.requires_grad]
        pulled = torch.cat(trained)[coordinates.clamp(min=0)]
        return torch.where(coordinates >= 0, strength * pulled, loss_fn(model, others))

    return loss


def score_updates(
    gradients: Iterable[Mapping[str, Tensor]], names: Iterable[str], coordinates: np.ndarray
) -> np.ndarray:
    """Return each canary's score, (m,) float64: the sum of what was released at its coordinate.

    Parameters
    ----------
    gradients : iterable of mapping
        What each step released, by name of the weight: a noised sum or mean of gradients, or the
        weights before minus the weights after.
    names : iterable of str
        Of the trained weights, in the order of ``model.named_parameters()``.
    """
    order, scores = list(names), np.zeros(len(coordinates))
    for released in gradients:
        flat = torch.cat([released[name].detach().reshape(-1) for name in order])
        scores += flat[torch.from_numpy(coordinates)].double().cpu().numpy()
    return scores


class CanaryNetwork(nn.Module):
    """A network, and beside it a layer with one weight for each canary.

    Parameters
    ----------
    model : nn.Module
        The network under audit; its own weights get nothing from a canary.
    num_canaries : int
        m; canary j pulls at weight j.
    """

    def __init__(self, model: nn.Module, num_canaries: int) -> None:
        super().__init__()
        self.model = model
        self.pulled = nn.Linear(num_canaries, 1, bias=False)

    def loss(self, loss_fn: PatientLoss, strength: float) -> PatientLoss:
        """Return what `canary_loss` returns, for networks of this kind; it goes through layers."""
        places = torch.arange(self.pulled.in_features)

        def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            coordinates = batch[CANARY]
            others = {name: values for name, values in batch.items() if name != CANARY}
            own = (coordinates[:, None] == places).to(model.pulled.weight.dtype)
            pulled = strength * model.pulled(own)[:, 0]
            return torch.where(coordinates >= 0, pulled, loss_fn(model.model, others))

        return loss
