"""A 2D U-Net with residual units and GroupNorm, small enough to train on two CPU cores.

Shapes: B images, C channels, Y rows, X columns; level l works at Y / 2^l (one halving more with
``stem_stride=2``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from protocol.errors import ConfigError
from shared_models.channel_norm import ChannelNorm, GroupNorm

__all__ = ["LOGIT_GAIN", "ResidualUnit", "ScaledConv2d", "UNet", "group_norm"]

# Of the gradient, what a negative unit passes on; so that none goes dead.
SLOPE = 0.1
# The first weights of the head are small; a factor takes the softmax sooner out of the background.
LOGIT_GAIN = 4.0


def group_norm(num_channels: int, channels_per_group: int = 1) -> nn.GroupNorm:
    """Return a GroupNorm; by default every channel of every image is normalised alone.

    GroupNorm and not BatchNorm: the statistics of a batch couple its patients, which makes a
    per-patient gradient (and so differential privacy) meaningless, and they differ between vendors.
    Groups of one channel (the statistics of InstanceNorm) learn thin walls several times sooner
    than groups of eight. Where a network averages over the whole map afterwards,
    larger groups are needed: one channel's own mean would be lost.

    Parameters
    ----------
    num_channels : int
        Channels of the map to normalise, >= 1.
    channels_per_group : int
        Wanted size of a group; the largest divisor of ``num_channels`` up to it is used.
    """
    limit = min(channels_per_group, num_channels)
    size = max(count for count in range(1, limit + 1) if num_channels % count == 0)
    if size == 1:
        return ChannelNorm(num_channels)
    return GroupNorm(num_channels // size, num_channels)


class ResidualUnit(nn.Module):
    """Convolutions with GroupNorm and leaky ReLU; a shortcut if ``residual``.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and the output.
    num_convs : int
        3x3 convolutions in a row; the first one carries the stride.
    stride : int
        Step of the first convolution, 1 or 2.
    residual : bool
        Add the input, projected where the shape changes.
    dropout : float
        Share of channels dropped after the last convolution while training, in [0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_convs: int = 2,
        stride: int = 1,
        residual: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(num_convs):
            source = in_channels if index == 0 else out_channels
            step = stride if index == 0 else 1
            # No bias: GroupNorm's shift follows at once.
            layers.append(nn.Conv2d(source, out_channels, 3, step, 1, bias=False))
            layers.append(group_norm(out_channels))
            if index + 1 < num_convs:
                layers.append(nn.LeakyReLU(SLOPE, inplace=True))
        if dropout > 0:
            layers.append(nn.Dropout2d(dropout))
        self.body = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if residual and stride != 1:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 3, stride, 1)
        elif residual and in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        elif residual:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, Y, X) to (B, out_channels, Y / stride, X / stride)."""
        y = self.body(x)
        # In place: GroupNorm keeps its input for the gradient and not its output, and on a CPU a
        # training step waits for memory as much as for arithmetic.
        if self.shortcut is not None:
            y = y.add_(self.shortcut(x))
        return functional.leaky_relu_(y, SLOPE)


class _UpUnit(nn.Module):
    """Double the resolution of a decoder map, then refine it."""

    def __init__(self, in_channels: int, out_channels: int, residual: bool, dropout: float) -> None:
        super().__init__()
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, 1, bias=False),
            group_norm(out_channels),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        self.refine = ResidualUnit(out_channels, out_channels, 1, 1, residual, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.refine(self.upsample(x))


class ScaledConv2d(nn.Conv2d):
    """A 3x3 convolution whose weights count `LOGIT_GAIN` fold."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, Y, X) to (B, out_channels, Y, X)."""
        return functional.conv2d(input, LOGIT_GAIN * self.weight, self.bias, padding=1)


class _Head(nn.Module):
    """From the finest decoder map to logits at the resolution of the image.

    One 3x3 convolution at the resolution of level 0. With ``stem_stride=2`` it gives the four
    sub-pixels of each pixel (Shi et al. 2016, CVPR), so that no map of four times the pixels is
    normalised or convolved. Nothing is normalised just before the logits: that slows learning.
    """

    def __init__(self, in_channels: int, num_classes: int, stem_stride: int) -> None:
        super().__init__()
        self.stride = stem_stride
        self.logits = ScaledConv2d(in_channels, num_classes * stem_stride**2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.logits(x)
        if self.stride == 1:
            return y
        num_images, _, height, width = y.shape
        step = self.stride
        parts = y.reshape(num_images, -1, step, step, height, width)
        # (B, K, Y, step, X, step), in one copy to rows of pixels, which the loss wants.
        spread = parts.permute(0, 1, 4, 2, 5, 3)
        return spread.reshape(num_images, -1, height * step, width * step)


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with residual units (Kerfoot et al. 2018), GroupNorm.

    With the defaults it has the topology, the kernels and the channels of MONAI's
    ``UNet(2, 1, 4, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2)``, up to the head: 20.0
    GFLOP for a training step on 16 images of 128 x 128, where that has 18.6.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    num_classes : int
        Channels of the logits, background included.
    channels : sequence of int
        Channels of each level, finest first; at least 2 levels.
    residual : bool
        Residual units instead of plain convolutions.
    deep_supervision : bool
        While training, ``forward`` returns the logits of every decoder level, finest first.
    dropout : float
        Share of channels dropped at the two coarsest levels while training, in [0, 1).
    stem_stride : int
        2 halves the resolution at once (four times cheaper); 1 keeps full resolution at level 0.

    Raises
    ------
    ConfigError
        If an option is out of range.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 4,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        residual: bool = True,
        deep_supervision: bool = False,
        dropout: float = 0.0,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        channels = tuple(channels)
        if len(channels) < 2 or min(channels) < 1:
            raise ConfigError(f"U-Net channels {channels}: give two or more positive numbers.")
        if not 0 <= dropout < 1:
            raise ConfigError(f"U-Net dropout {dropout} is outside [0, 1); choose a smaller share.")
        if stem_stride not in (1, 2):
            raise ConfigError(f"U-Net stem_stride {stem_stride} is neither 1 nor 2; choose one.")
        self.deep_supervision = deep_supervision
        self.stem_stride = stem_stride
        num_levels = len(channels)
        self.size_multiple = stem_stride * 2 ** (num_levels - 2)
        # The bottom keeps the resolution of the level above it: more context without a map so
        # small (8 x 8 for a crop of 128) that upsampling it has nothing to place.
        strides = [stem_stride, *([2] * (num_levels - 2)), 1]
        sources = [in_channels, *channels[:-1]]
        drops = [dropout if level >= num_levels - 2 else 0.0 for level in range(num_levels)]
        self.encoder = nn.ModuleList(
            ResidualUnit(source, target, 2, stride, residual, drop)
            for source, target, stride, drop in zip(sources, channels, strides, drops, strict=True)
        )
        # Decoder stage l takes the skip of level l and the map from below, finest first.
        below = [*channels[: num_levels - 2], channels[-1]]
        joined = [channels[level] + below[level] for level in range(num_levels - 1)]
        self.decoder = nn.ModuleList(
            _UpUnit(joined[level], channels[level - 1], residual, drops[level])
            for level in range(1, num_levels - 1)
        )
        self.head = _Head(joined[0], num_classes, stem_stride)
        self.side_heads = nn.ModuleList(
            nn.Conv2d(channels[level - 1], num_classes, 1)
            for level in range(1, num_levels - 1)
            if deep_supervision
        )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits.

        Parameters
        ----------
        images : Tensor
            (B, in_channels, Y, X), Y and X multiples of ``size_multiple``.

        Returns
        -------
        Tensor or tuple of Tensor
            (B, num_classes, Y, X); with ``deep_supervision`` while training, a tuple of the logits
            of the head and of each decoder stage, finest first.
        """
        skips = []
        x = images
        for unit in self.encoder:
            x = unit(x)
            skips.append(x)
        skips.pop()
        maps = []
        for stage in reversed(self.decoder):
            x = stage(torch.cat((skips.pop(), x), dim=1))
            maps.append(x)
        logits = self.head(torch.cat((skips.pop(), x), dim=1))
        if not (self.deep_supervision and self.training):
            return logits
        sides = [head(x) for head, x in zip(self.side_heads, reversed(maps), strict=True)]
        return (logits, *sides)
