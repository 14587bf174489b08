import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from shared_models.channel_norm import ChannelNorm, GroupNorm

GENERATOR = torch.Generator().manual_seed(8)


def _norms(num_channels: int) -> tuple[ChannelNorm, nn.GroupNorm]:
    ours, peer = ChannelNorm(num_channels), nn.GroupNorm(num_channels, num_channels)
    with torch.no_grad():
        ours.weight.copy_(torch.rand(num_channels, generator=GENERATOR) + 0.5)
        ours.bias.copy_(torch.randn(num_channels, generator=GENERATOR))
    peer.load_state_dict(ours.state_dict())
    return ours, peer.double()


@pytest.mark.parametrize("num_channels", [1, 5, 16, 64, 80])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_it_is_group_norm_in_double_precision(
    num_channels: int, memory_format: torch.memory_format, offset: float
) -> None:
    ours, peer = _norms(num_channels)
    x = torch.randn(3, num_channels, 9, 7, generator=GENERATOR) + offset
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    exact = x.detach().double().requires_grad_()
    weight = torch.randn(x.shape, generator=GENERATOR)
    y, expected = ours(x), peer(exact)
    (y * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-4)
    for found, reference in (
        (x.grad, exact.grad),
        (ours.weight.grad, peer.weight.grad),
        (ours.bias.grad, peer.bias.grad),
    ):
        torch.testing.assert_close(found.double(), reference, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("num_channels", [8, 64])
def test_per_image_gradients_by_vmap_add_up(num_channels: int) -> None:
    norm, _ = _norms(num_channels)
    images = torch.randn(4, num_channels, 6, 6, generator=GENERATOR)
    weights = {name: p.detach() for name, p in norm.named_parameters()}

    def one(values: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return functional_call(norm, values, (image[None],)).square().sin().sum()

    each = vmap(grad(one), (None, 0))(weights, images)
    norm(images).square().sin().sum().backward()
    for name, parameter in norm.named_parameters():
        torch.testing.assert_close(each[name].sum(0), parameter.grad, atol=1e-4, rtol=1e-4)


def test_its_output_may_be_changed_in_place() -> None:
    norm, _ = _norms(64)
    x = torch.randn(2, 64, 4, 4, generator=GENERATOR).requires_grad_()
    norm(x).relu_().sum().backward()
    assert x.grad is not None


def test_other_precisions_are_left_to_group_norm() -> None:
    norm, peer = _norms(4)
    x = torch.randn(2, 4, 3, 3, generator=GENERATOR, dtype=torch.float64)
    assert torch.equal(norm.double()(x), peer(x))


def _bf16_and_exact(
    norm: nn.GroupNorm, peer: nn.GroupNorm, x: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """Return what was found, the reference in double precision and the reference's size."""
    exact = x.detach().double().requires_grad_()
    pull = torch.randn(x.shape, generator=GENERATOR).bfloat16()
    y, expected = norm(x), peer(exact)
    y.backward(pull)
    expected.backward(pull.double())
    pairs = [
        (y, expected),
        (x.grad, exact.grad),
        (norm.weight.grad, peer.weight.grad),
        (norm.bias.grad, peer.bias.grad),
    ]
    return [(a.detach(), b.detach(), float(b.detach().abs().max())) for a, b in pairs]


@pytest.mark.parametrize(("num_channels", "group"), [(1, 1), (16, 1), (80, 1), (16, 8), (64, 8)])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_bf16_maps_are_rounded_once_and_sums_not_at_all(
    num_channels: int, group: int, offset: float
) -> None:
    norm: nn.GroupNorm = ChannelNorm(num_channels)
    if group > 1:
        norm = GroupNorm(num_channels // group, num_channels)
    peer = nn.GroupNorm(num_channels // group, num_channels).double()
    x = torch.randn(3, num_channels, 9, 7, generator=GENERATOR) + offset
    x = x.bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    y, dx, weight, bias = _bf16_and_exact(norm, peer, x)
    assert y[0].dtype == dx[0].dtype == torch.bfloat16
    assert weight[0].dtype == bias[0].dtype == torch.float32
    # Half a unit in the last of bf16's 8 binary places, relative; fp32 sums lose next to nothing.
    for found, expected, size in (y, dx):
        assert torch.all((found - expected).abs() <= 2**-8 * expected.abs() + 1e-4 * size)
    for found, expected, size in (weight, bias):
        assert torch.all((found - expected).abs() <= 1e-4 * size)
