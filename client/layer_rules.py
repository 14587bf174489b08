"""How the project's own layers take their gradients apart by patients (`privacy.layers`)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from privacy.layers import RULES, LayerRule, convolution, group_norm, normalised
from shared_models.channel_norm import ChannelNorm, GroupNorm
from shared_models.unet import LOGIT_GAIN, ScaledConv2d

__all__ = ["LAYER_RULES"]


def _channel_norm(
    layer: Any, x: Tensor, node: Any, g: Tensor, num_patients: int
) -> dict[str, Tensor]:
    # Off the CPU it is a GroupNorm; on it, its own node holds (x, weight, mean, rstd).
    if node is None or node.name() == "NativeGroupNormBackward0":
        return group_norm(layer, x, node, g, num_patients)
    _, _, mean, rstd = node.saved_tensors
    return normalised(x, mean, rstd, g, num_patients)


def _scaled_convolution(
    layer: Any, x: Tensor, node: Any, g: Tensor, num_patients: int
) -> dict[str, Tensor]:
    grads = convolution(layer, x, node, g, num_patients)
    return {**grads, "weight": LOGIT_GAIN * grads["weight"]}


LAYER_RULES: Mapping[type[nn.Module], LayerRule] = {
    **RULES,
    ChannelNorm: _channel_norm,
    GroupNorm: group_norm,
    ScaledConv2d: _scaled_convolution,
}
"""The general rules, and those of the layers in ``shared_models``."""
