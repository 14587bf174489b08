"""Survival from a table alone: a small network over standardised fields and their absence.

Shapes: B patients, P tabular fields, K intervals, O outputs of the head.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from protocol.errors import ConfigError
from shared_models.heads import choose_head

__all__ = ["Tabular"]


class Tabular(nn.Module):
    """The outputs of a survival head from measurements and covariates.

    Each hidden layer: linear, normalised over its width, ReLU, dropout. The last layer's weights
    start at zero, so training starts from the patient whom ``start`` describes.

    Parameters
    ----------
    num_tabular : int
        P, >= 0.
    num_intervals : int
        K, >= 1.
    head : str
        A key of ``shared_models.heads.HEADS``; it says how many outputs there are.
    hidden : sequence of int
        Widths of the hidden layers; empty for the linear model.
    dropout : float
        Dropped share of each hidden layer, in [0, 1).
    field_dropout : float
        Chance that a field is made missing while training, so that the network can do without any;
        in [0, 1).
    start : sequence of float, optional
        O first outputs, e.g. of the head's ``start_outputs``; zeros by default.

    Raises
    ------
    ConfigError
        If an option is out of range or the head unknown.
    """

    def __init__(
        self,
        num_tabular: int,
        num_intervals: int,
        head: str = "logistic_hazard",
        hidden: Sequence[int] = (32, 32),
        dropout: float = 0.1,
        field_dropout: float = 0.1,
        start: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        num_outputs = choose_head(head).num_outputs(num_intervals)
        _check(num_tabular, num_outputs, hidden, dropout, field_dropout)
        first = [0.0] * num_outputs if start is None else [float(value) for value in start]
        if len(first) != num_outputs or not all(math.isfinite(value) for value in first):
            raise ConfigError(
                f"Tabular start has {len(first)} values; head '{head}' needs {num_outputs}, each "
                "finite."
            )
        # A module, so that whoever looks for the network's random numbers finds these as well.
        self.drop_fields = nn.Dropout(field_dropout)
        widths = [2 * num_tabular, *hidden]
        layers: list[nn.Module] = []
        for source, target in pairwise(widths):
            # GroupNorm of one group is LayerNorm, under the name that the networks' tests look for.
            norm = nn.GroupNorm(1, target)
            layers += [nn.Linear(source, target), norm, nn.ReLU(), nn.Dropout(dropout)]
        last = nn.Linear(widths[-1], num_outputs)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor(first))
        self.body = nn.Sequential(*layers, last)

    def forward(
        self,
        images: Tensor | None,
        slice_present: Tensor | None,
        tabular: Tensor,
        missing: Tensor,
    ) -> Tensor:
        """Return the head's outputs.

        Parameters
        ----------
        images, slice_present : Tensor or None
            Never read; here so that it is called like the network with images.
        tabular : Tensor
            (B, P) standardised; what stands in a missing field is never read.
        missing : Tensor
            (B, P) bool or 0/1, 1 where the field is missing.

        Returns
        -------
        Tensor
            (B, O).
        """
        missing = missing.bool() | (self.drop_fields(torch.ones_like(tabular)) == 0)
        table = torch.cat((tabular.masked_fill(missing, 0), missing.to(tabular.dtype)), dim=1)
        # A table is small: bf16 would round a patient's covariates and save nothing.
        with torch.autocast(tabular.device.type, enabled=False):
            return self.body(table)


def _check(
    num_tabular: int,
    num_outputs: int,
    hidden: Sequence[int],
    dropout: float,
    field_dropout: float,
) -> None:
    sizes = num_tabular >= 0 and num_outputs >= 1 and all(width >= 1 for width in hidden)
    if not sizes or not (0 <= dropout < 1 and 0 <= field_dropout < 1):
        raise ConfigError(
            f"Tabular was given {num_tabular} fields, {num_outputs} outputs, hidden layers "
            f"{list(hidden)}, dropout {dropout} and field_dropout {field_dropout}; sizes must be "
            "positive and dropout in [0, 1)."
        )
