"""The fully convolutional network of Bai et al. 2018, with GroupNorm in place of BatchNorm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from protocol.errors import ConfigError
from shared_models.unet import group_norm

__all__ = ["FCN"]


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=False),
        group_norm(out_channels),
        nn.ReLU(inplace=True),
    )


class FCN(nn.Module):
    """VGG-like encoder whose every level is brought to full size and joined.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    num_classes : int
        Channels of the logits, background included.
    channels : sequence of int
        Filters of each level, finest first; each further level halves the resolution.
    num_convs : sequence of int
        3x3 convolutions of each level.
    side_channels : int
        Channels to which each level is reduced before it is enlarged.
    joint_channels : int
        Channels of the two 1x1 convolutions after the levels are joined.

    Raises
    ------
    ConfigError
        If ``channels`` and ``num_convs`` differ in length or hold a number below 1.

    References
    ----------
    Bai et al., J Cardiovasc Magn Reson 2018;20:65, figure 2.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 4,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        num_convs: Sequence[int] = (2, 2, 3, 3, 3),
        side_channels: int = 32,
        joint_channels: int = 64,
    ) -> None:
        super().__init__()
        if len(channels) != len(num_convs) or min((*channels, *num_convs), default=0) < 1:
            raise ConfigError(
                f"FCN channels {tuple(channels)} and num_convs {tuple(num_convs)} do not match; "
                "give one positive number for each level in both."
            )
        self.size_multiple = 2 ** (len(channels) - 1)
        levels, source = [], in_channels
        for level, (width, count) in enumerate(zip(channels, num_convs, strict=True)):
            convs = [_conv(source, width, 3, 2 if level else 1)]
            convs += [_conv(width, width, 3) for _ in range(count - 1)]
            levels.append(nn.Sequential(*convs))
            source = width
        self.levels = nn.ModuleList(levels)
        self.sides = nn.ModuleList(_conv(width, side_channels, 1) for width in channels)
        self.joint = nn.Sequential(
            _conv(side_channels * len(channels), joint_channels, 1),
            _conv(joint_channels, joint_channels, 1),
            nn.Conv2d(joint_channels, num_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes, Y, X) of images (B, in_channels, Y, X).

        Y and X are multiples of ``size_multiple``.
        """
        x = images
        maps: list[Tensor] = []
        for level, side in zip(self.levels, self.sides, strict=True):
            x = level(x)
            y = side(x)
            if maps:
                y = functional.interpolate(
                    y, size=images.shape[-2:], mode="bilinear", align_corners=False
                )
            maps.append(y)
        return self.joint(torch.cat(maps, dim=1))
