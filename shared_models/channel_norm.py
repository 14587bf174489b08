"""GroupNorm with one channel a group, with a backward pass that suits channels-last maps on a CPU.

Shapes: B images, C channels, Y rows, X columns.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ChannelNorm"]

# From here on PyTorch's forward kernel, which walks group by group, is slower than whole tensors.
MANY_CHANNELS = 64


class _Normalise(torch.autograd.Function):
    """``y = (x - mean) * rstd * weight + bias`` over each channel of each image."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        num_images, num_channels, height, width = x.shape
        if num_channels < MANY_CHANNELS:
            size = height * width
            shape = (num_images, num_channels, size, num_channels)
            return torch.native_group_norm(x, weight, bias, *shape, eps)
        mean = x.mean(dim=(2, 3), keepdim=True)
        centred = x - mean
        rstd = torch.rsqrt(centred.square().mean(dim=(2, 3), keepdim=True) + eps)
        y = torch.addcmul(bias[:, None, None], centred, weight[:, None, None] * rstd)
        return y, mean[:, :, 0, 0], rstd[:, :, 0, 0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, _ = inputs
        _, mean, rstd = output
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        size = x.shape[2] * x.shape[3]
        flat_x, flat_grad = (t.permute(0, 2, 3, 1).flatten(1, 2) for t in (x, grad))
        if x.shape[1] < MANY_CHANNELS:
            # The diagonal of a small matrix product reads each map once and writes none.
            product = torch.bmm(flat_x.transpose(1, 2), flat_grad)
            summed_product = product.diagonal(dim1=1, dim2=2)
        else:
            summed_product = (flat_x * flat_grad).sum(dim=1)
        summed = flat_grad.sum(dim=1)
        along = (summed_product - mean * summed) * rstd
        # dx = weight rstd (g - mean(g) - x_hat mean(g x_hat)), as scale g + slope x + shift.
        scale = weight * rstd
        slope = -scale * rstd * along / size
        shift = -scale * summed / size - slope * mean
        dx = torch.addcmul(_spread(shift), grad, _spread(scale))
        # Out of place: addcmul_ has no batching rule, and vmap would fall back to a loop.
        dx = torch.addcmul(dx, x, _spread(slope))
        return dx, along.sum(dim=0), summed.sum(dim=0), None


def _spread(values: Tensor) -> Tensor:
    return values[:, :, None, None]


class ChannelNorm(nn.GroupNorm):
    """``nn.GroupNorm(C, C)``: the same weights and, to rounding, the same results.

    PyTorch's backward kernel loops over the channels of a group inside each pixel, and with one
    channel a group cannot use vector registers. A training step of the U-Net takes an eighth less
    time with this one (one thread, batch 16 x 128 x 128).

    Parameters
    ----------
    num_channels : int
        C, >= 1.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, num_channels)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, Y, X)."""
        # Elsewhere PyTorch's own kernels are good, and mixed precision is theirs to settle.
        if input.device.type != "cpu" or input.dtype != torch.float32:
            return super().forward(input)
        return _Normalise.apply(input, self.weight, self.bias, self.eps)[0]
