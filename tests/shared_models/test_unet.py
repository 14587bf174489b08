import pytest
import torch
from monai.networks.nets import UNet as PeerUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from protocol.errors import ConfigError
from shared_models.networks import NETWORKS, build
from shared_models.unet import UNet, group_norm

OPTIONS = {
    "unet": {"channels": (8, 16, 32)},
    "fcn": {"channels": (8, 16, 32), "num_convs": (1, 1, 1), "side_channels": 8},
    "prognosis": {"num_tabular": 3, "num_intervals": 4},
    "sorting": {"channels": (4, 8)},
    "tabular": {"num_tabular": 3, "num_intervals": 4},
}


@pytest.mark.parametrize("name", ["unet", "fcn"])
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_logits_have_the_size_of_the_image(name: str, size: tuple[int, int]) -> None:
    model = build(name, OPTIONS[name])
    assert model(torch.rand(2, 1, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_only_group_norm(name: str) -> None:
    kinds = {type(m) for m in build(name, OPTIONS[name]).modules()}
    assert any(issubclass(kind, nn.GroupNorm) for kind in kinds)
    assert not {k for k in kinds if "BatchNorm" in k.__name__ or "InstanceNorm" in k.__name__}


@pytest.mark.parametrize("name", ["unet", "fcn"])
def test_an_image_does_not_see_its_batch(name: str) -> None:
    model = build(name, OPTIONS[name]).eval()
    images = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_every_option_trains_every_weight(residual: bool, stem_stride: int) -> None:
    model = UNet(channels=(8, 16, 32), residual=residual, stem_stride=stem_stride)
    model(torch.rand(2, 1, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_deep_supervision_gives_each_decoder_level_while_training_only() -> None:
    model = UNet(channels=(8, 16, 32, 64), deep_supervision=True)
    levels = model.train()(torch.rand(1, 1, 64, 64))
    assert [tuple(level.shape) for level in levels] == [
        (1, 4, 64, 64),
        (1, 4, 32, 32),
        (1, 4, 16, 16),
    ]
    assert model.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 4, 64, 64)


def test_a_step_costs_what_the_peer_costs() -> None:
    peer = PeerUNet(2, 1, 4, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2)
    counts, sizes = [], []
    for model in (UNet(), peer):
        with FlopCounterMode(display=False) as counter:
            model(torch.rand(2, 1, 128, 128)).sum().backward()
        counts.append(counter.get_total_flops())
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert 1.0 <= counts[0] / counts[1] < 1.1
    assert 1.0 <= sizes[0] / sizes[1] < 1.05


@pytest.mark.parametrize(
    ("channels", "per_group", "groups"),
    [(1, 1, 1), (16, 1, 16), (16, 8, 2), (24, 8, 3), (36, 8, 6), (4, 8, 1)],
)
def test_groups_are_as_large_as_wanted_and_possible(
    channels: int, per_group: int, groups: int
) -> None:
    assert group_norm(channels, per_group).num_groups == groups


def test_first_weights_depend_on_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build("unet", OPTIONS["unet"], seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "unet3",
            {},
            "Network 'unet3' is unknown; choose one of fcn, prognosis, sorting, tabular, unet.",
        ),
        ("unet", {"depth": 3}, "The options of network 'unet' .depth. do not fit"),
        ("unet", {"channels": (8,)}, "give two or more positive numbers"),
        ("unet", {"dropout": 1.0}, "outside \\[0, 1\\)"),
        ("unet", {"stem_stride": 3}, "neither 1 nor 2"),
        ("fcn", {"num_convs": (1,)}, "one positive number for each level"),
        ("prognosis", {"num_tabular": 1, "num_intervals": 2, "dropout": 1.0}, "outside"),
        (
            "prognosis",
            {"num_tabular": 1, "num_intervals": 2, "baseline_hazard": [0.1]},
            "one for each of 2 intervals",
        ),
    ],
)
def test_a_wrong_network_is_refused_in_a_sentence(
    name: str, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(name, options)


def test_batch_norm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "bad", lambda: nn.Sequential(nn.BatchNorm2d(4)))
    with pytest.raises(ConfigError, match=r"BatchNorm at '0'.*use GroupNorm"):
        build("bad", {})
