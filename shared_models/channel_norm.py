"""GroupNorm for channels-last maps on a CPU, in fp32 and in bf16.

Shapes: B images, C channels, Y rows, X columns. Statistics and sums are fp32 whatever the maps are.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ChannelNorm", "GroupNorm"]

# From here on PyTorch's forward kernel, which walks group by group, is slower than whole tensors.
MANY_CHANNELS = 64


class _Normalise(torch.autograd.Function):
    """``y = (x - mean) * rstd * weight + bias`` for each channel of an image, as precise as x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        num_images, num_channels, height, width = x.shape
        if num_channels < MANY_CHANNELS:
            size = height * width
            shape = (num_images, num_channels, size, num_channels)
            return torch.native_group_norm(x, weight, bias, *shape, eps)
        exact = x.float()
        mean = exact.mean(dim=(2, 3), keepdim=True)
        centred = exact - mean
        rstd = torch.rsqrt(centred.square().mean(dim=(2, 3), keepdim=True) + eps)
        y = torch.addcmul(bias[:, None, None], centred, weight[:, None, None] * rstd)
        return y.to(x.dtype), mean[:, :, 0, 0], rstd[:, :, 0, 0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, _ = inputs
        _, mean, rstd = output
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        precision = x.dtype
        x, grad = x.float(), grad.float()
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
        return dx.to(precision), along.sum(dim=0), summed.sum(dim=0), None


def _spread(values: Tensor) -> Tensor:
    return values[:, :, None, None]


class ChannelNorm(nn.GroupNorm):
    """``nn.GroupNorm(C, C)``: the same weights and, to rounding, the same results.

    PyTorch's backward kernel loops over the channels of a group inside each pixel, and with one
    channel a group cannot use vector registers. A training step of the U-Net takes an eighth less
    time with this one in fp32, and less than half the time in bf16 (``benchmarks/training_step.py``
    with and without, on a processor that multiplies bf16 matrices).

    Parameters
    ----------
    num_channels : int
        C, >= 1.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, num_channels)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, Y, X)."""
        # Elsewhere PyTorch's own kernels are good.
        ours = input.dtype in (torch.float32, torch.bfloat16) and self.weight.dtype == torch.float32
        if input.device.type != "cpu" or not ours:
            return super().forward(input)
        return _Normalise.apply(input, self.weight, self.bias, self.eps)[0]


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` with several channels a group, which raises bf16 maps to fp32 on a CPU.

    There PyTorch's kernels for bf16 maps take three times as long as those for fp32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, Y, X)."""
        mixed = input.dtype == torch.bfloat16 and self.weight.dtype == torch.float32
        if input.device.type != "cpu" or not mixed:
            return super().forward(input)
        return super().forward(input.float()).to(input.dtype)
