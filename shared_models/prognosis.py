"""Survival from short-axis images, measurements and covariates, hard to overfit on 200 patients.

Shapes: B patients, C channels (LGE, ED, ES), Z slices, Y rows, X columns, P tabular fields, K
intervals, O outputs of the head.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from protocol.errors import ConfigError
from shared_models.heads import choose_head
from shared_models.unet import group_norm

__all__ = ["Prognosis", "masked_mean"]

# Heads whose outputs are one hazard an interval, which a single risk can shift alike.
HAZARDS = ("logistic_hazard", "pc_hazard")


def masked_mean(values: Tensor, present: Tensor) -> Tensor:
    """Return the mean over the slices that are present.

    Parameters
    ----------
    values : Tensor
        (B, Z, F).
    present : Tensor
        (B, Z) bool.

    Returns
    -------
    Tensor
        (B, F); zeros for a patient without any slice.
    """
    weights = present.to(values.dtype)[..., None]
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


class _SliceEncoder(nn.Module):
    """A small 2D network, the same for every slice, ending in a mean over the slice.

    A mean and not a maximum: how much scar there is matters more than that there is some.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for source, target in zip((in_channels, *channels[:-1]), channels, strict=True):
            layers += [
                nn.Conv2d(source, target, 3, 2, 1, bias=False),
                group_norm(target, 8),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers)

    def forward(self, slices: Tensor) -> Tensor:
        return self.body(slices).mean(dim=(-2, -1))


class _MissingFields(_DropoutNd):
    """Which fields of a table are made missing while training.

    Of torch's dropouts, so that whoever looks for a network's random numbers finds these as well.
    """

    def forward(self, tabular: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return torch.zeros_like(tabular, dtype=torch.bool)
        return torch.rand_like(tabular) < self.p


class Prognosis(nn.Module):
    """A survival head's outputs from images and a table, after the fusion of Popescu et al. 2022.

    The risk of a patient is a linear function of the table plus a small network of the table and
    an image embedding. The small network starts at zero, so training starts from the linear model.

    Parameters
    ----------
    num_tabular : int
        P, >= 0.
    num_intervals : int
        K, >= 1.
    in_channels : int
        C.
    channels : sequence of int
        Filters of the slice encoder; each level halves the resolution. Empty: images are ignored.
    embedding : int
        Numbers that the images of a patient are reduced to.
    hidden : int
        Width of the hidden layer over table and embedding; 0 for a linear model.
    dropout : float
        Dropped share of the image embedding and of the hidden layer, in [0, 1).
    field_dropout : float
        Chance that a tabular field is made missing while training, so that the network can do
        without any; in [0, 1).
    proportional : bool, optional
        One risk shifts all intervals alike (the discrete form of proportional hazards); otherwise
        the small network has a further output for each interval. By default so for heads of
        hazards. With other heads nothing is shared: the linear model and the small network have
        one output for each of the head's.
    baseline_hazard : float or sequence of float
        Hazards of an average patient to start from, in (0, 1), where there is no ``start``.
    head : str
        A key of ``shared_models.heads.HEADS``; it says how many outputs there are.
    start : sequence of float, optional
        O outputs of an average patient to start from, e.g. the head's ``start_outputs``.

    Raises
    ------
    ConfigError
        If an option is out of range.
    """

    def __init__(
        self,
        num_tabular: int,
        num_intervals: int,
        in_channels: int = 3,
        channels: Sequence[int] = (8, 16, 32),
        embedding: int = 8,
        hidden: int = 16,
        dropout: float = 0.3,
        field_dropout: float = 0.1,
        proportional: bool | None = None,
        baseline_hazard: float | Sequence[float] = 0.03,
        head: str = "logistic_hazard",
        start: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        num_outputs = choose_head(head).num_outputs(num_intervals)
        if start is None:
            start = _start(head, _hazards(baseline_hazard, num_intervals))
        elif len(start) != num_outputs or not all(math.isfinite(value) for value in start):
            raise ConfigError(
                f"Prognosis start has {len(start)} values; head '{head}' needs {num_outputs}, each "
                "finite."
            )
        self.shared = head in HAZARDS
        if proportional and not self.shared:
            raise ConfigError(
                f"Prognosis cannot be proportional with head '{head}', whose outputs are no "
                "hazards; leave proportional out."
            )
        if not (0 <= dropout < 1 and 0 <= field_dropout < 1):
            raise ConfigError(
                f"Prognosis dropout {dropout} or field_dropout {field_dropout} is outside [0, 1)."
            )
        self.drop_fields = _MissingFields(field_dropout)
        self.proportional = self.shared if proportional is None else proportional
        self.baseline = nn.Parameter(torch.tensor([float(value) for value in start]))
        common = 1 if self.shared else num_outputs
        self.linear = nn.Linear(2 * num_tabular, common, bias=False)
        nn.init.zeros_(self.linear.weight)
        self.encoder: nn.Module | None = None
        width = 2 * num_tabular
        if channels:
            self.encoder = _SliceEncoder(in_channels, tuple(channels))
            self.embed = nn.Sequential(nn.Linear(channels[-1], embedding), nn.Tanh())
            self.absent = nn.Parameter(torch.zeros(embedding))
            self.drop = nn.Dropout(dropout)
            width += embedding
        outputs = 1 + num_outputs if self.shared and not self.proportional else common
        last = nn.Linear(hidden or width, outputs, bias=False)
        nn.init.zeros_(last.weight)
        steps = [nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(dropout)] if hidden else []
        self.fusion = nn.Sequential(*steps, last)

    def forward(
        self, images: Tensor, slice_present: Tensor, tabular: Tensor, missing: Tensor
    ) -> Tensor:
        """Return the head's outputs.

        Parameters
        ----------
        images : Tensor
            (B, C, Z, Y, X) in [0, 1]; what stands in an absent slice is never read.
        slice_present : Tensor
            (B, Z) bool; a patient without images has none.
        tabular : Tensor
            (B, P) standardised; what stands in a missing field is never read.
        missing : Tensor
            (B, P) bool or 0/1, 1 where the field is missing.

        Returns
        -------
        Tensor
            (B, O).
        """
        missing = missing.bool() | self.drop_fields(tabular)
        table = torch.cat((tabular.masked_fill(missing, 0), missing.to(tabular.dtype)), dim=1)
        parts = [table]
        if self.encoder is not None:
            embedded = self.embed_images(images, slice_present.bool())
            parts.append(self.drop(embedded).to(tabular.dtype))
        # A table is small: bf16 would round a patient's covariates and save nothing.
        with torch.autocast(tabular.device.type, enabled=False):
            fused = self.fusion(torch.cat(parts, dim=1))
            common = self.baseline + self.linear(table)
        if not self.shared:
            return common + fused
        outputs = common + fused[:, :1]
        return outputs if self.proportional else outputs + fused[:, 1:]

    def embed_images(self, images: Tensor, present: Tensor) -> Tensor:
        """Return the embedding of each patient's slices, (B, embedding), each in (-1, 1)."""
        if self.encoder is None:
            raise ConfigError("This prognosis network has no image branch; give it channels.")
        num_patients, _, num_slices, _, _ = images.shape
        slices = images.transpose(1, 2).masked_fill(~present[:, :, None, None, None], 0)
        # Channels last by a copy of permuted axes: vmap has no rule for the memory format.
        slices = slices.flatten(0, 1).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        features = self.encoder(slices).unflatten(0, (num_patients, num_slices))
        embedded = self.embed(masked_mean(features, present))
        return torch.where(present.any(dim=1, keepdim=True), embedded, self.absent)


def _start(head: str, hazards: Sequence[float]) -> list[float]:
    """Return the outputs of a patient with these hazards; where they depend on time, of months."""
    if head == "logistic_hazard":
        return [math.log(hazard / (1 - hazard)) for hazard in hazards]
    cuts = [float(index + 1) for index in range(len(hazards))]
    return list(choose_head(head).start_outputs(hazards, cuts))


def _hazards(given: float | Sequence[float], num_intervals: int) -> list[float]:
    hazards = [float(given)] * num_intervals if isinstance(given, int | float) else list(given)
    if len(hazards) != num_intervals or not all(0 < hazard < 1 for hazard in hazards):
        raise ConfigError(
            f"Prognosis baseline_hazard {given} is not one number in (0, 1), or one for each of "
            f"{num_intervals} intervals; correct the option."
        )
    return hazards
