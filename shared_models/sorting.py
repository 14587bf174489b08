"""The sorting network: which sequence and which view a series is, from a picture and a few numbers.

Axes: B series, C channels (middle frame, temporal difference), Y rows, X columns, F numbers.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from protocol.errors import ConfigError
from protocol.series import SEQUENCES, VIEWS
from shared_models.unet import group_norm

__all__ = ["NUM_FEATURES", "Sorting", "sorting_objective", "split_logits"]

NUM_FEATURES = 24


class Sorting(nn.Module):
    """A small convolutional network whose pooled map is joined with the numbers of the series.

    Parameters
    ----------
    channels : sequence of int
        Filters of each level; every level halves the picture.
    hidden : int
        Width of the layer that sees both.

    Raises
    ------
    ConfigError
        If a width is below 1, or no level is given.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 32), hidden: int = 48) -> None:
        super().__init__()
        if not channels or min((*channels, hidden)) < 1:
            raise ConfigError(
                f"Sorting channels {tuple(channels)} and hidden {hidden} must be 1 at least."
            )
        layers: list[nn.Module] = []
        source = 2
        for width in channels:
            # All channels in one group: the average over the map would lose a channel's own mean.
            layers += [
                nn.Conv2d(source, width, 3, 2, 1, bias=False),
                group_norm(width, width),
                nn.ReLU(inplace=True),
            ]
            source = width
        self.encoder = nn.Sequential(*layers)
        self.joint = nn.Linear(source + NUM_FEATURES, hidden)
        self.outputs = nn.Linear(hidden, len(SEQUENCES) + len(VIEWS))

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        """Return logits (B, sequences + views) of images (B, 2, Y, X) and features (B, F)."""
        pooled = self.encoder(images).mean(dim=(2, 3))
        hidden = functional.relu(self.joint(torch.cat([pooled, features], dim=1)))
        return self.outputs(hidden)


def split_logits(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of the sequences (B, 9) and of the views (B, 11)."""
    sequence, view = logits.split([len(SEQUENCES), len(VIEWS)], dim=1)
    return sequence, view


def sorting_objective(model: Callable[..., Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Return the cross-entropy of sequence and view together, (B,)."""
    sequence, view = split_logits(model(batch["images"], batch["features"]).float())
    return functional.cross_entropy(
        sequence, batch["sequence"], reduction="none"
    ) + functional.cross_entropy(view, batch["view"], reduction="none")
