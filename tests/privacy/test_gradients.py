"""Per-patient gradients, however they are computed, and what one patient can change."""

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.layer_rules import LAYER_RULES
from privacy.gradients import ClippedSum, PatientGradients, PatientLoss, clipped_sum
from privacy.layers import RULES
from shared_models.heads import choose_head
from shared_models.objectives import prognosis_objective, segmentation_objective
from shared_models.sorting import sorting_objective


def _load() -> ModuleType:
    place = Path(__file__).with_name("made_up.py")
    spec = importlib.util.spec_from_file_location("made_up", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made_up = _load()
CASES = made_up.CASES

WAYS = {
    "one by one": {"chunk_size": 1},
    "vmap": {"chunk_size": 3},
    "layers": {"chunk_size": 3, "rules": LAYER_RULES},
    "threads": {"chunk_size": 2, "rules": LAYER_RULES, "threads": 2},
}


def one(patients: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: tensor[row : row + 1] for name, tensor in patients.items()}


def brute_force(
    model: nn.Module, patients: dict[str, Tensor], loss_fn: PatientLoss, clip_norm: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the clipped sum as its formula says, each patient by an ordinary backward pass."""
    total = {name: torch.zeros_like(p).double() for name, p in model.named_parameters()}
    norms = []
    for row in range(len(next(iter(patients.values())))):
        model.zero_grad(set_to_none=True)
        loss_fn(model, one(patients, row)).sum().backward()
        grads = {
            name: torch.zeros_like(p).double() if p.grad is None else p.grad.double()
            for name, p in model.named_parameters()
        }
        norm = torch.sqrt(sum(g.square().sum() for g in grads.values()))
        for name, g in grads.items():
            total[name] += g * min(1.0, clip_norm / float(norm))
        norms.append(norm)
    model.zero_grad(set_to_none=True)
    return total, torch.stack(norms)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(torch.sqrt(sum((a[n].double() - b[n].double()).square().sum() for n in b)))


@pytest.mark.parametrize("name", CASES)
def test_every_way_gives_the_gradients_of_one_patient_at_a_time(name: str) -> None:
    model, patients, loss_fn = CASES[name](5)
    _, norms = brute_force(model, patients, loss_fn, 1.0)
    # Some are clipped and some are not.
    clip_norm = float(norms.median())
    expected, norms = brute_force(model, patients, loss_fn, clip_norm)
    size = float(torch.sqrt(sum(g.square().sum() for g in expected.values())))
    # The heads differ in their loss alone.
    for way in ["layers"] if name.startswith("head") else WAYS:
        with PatientGradients(model, loss_fn, **WAYS[way]) as gradients:
            found = gradients.clipped_sum(patients, clip_norm)
            assert gradients.fast == ("rules" in WAYS[way]), way
        assert distance(found.gradients, expected) <= 1e-5 * size, way
        torch.testing.assert_close(found.norms, norms, rtol=1e-5, atol=1e-9)
        losses = torch.cat([loss_fn(model, one(patients, row)) for row in range(5)])
        torch.testing.assert_close(found.loss, losses, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("name", ["fcn", "sorting", "tabular"])
def test_the_hooks_of_opacus_agree_where_they_work(name: str) -> None:
    from opacus import GradSampleModule

    if name == "fcn":
        options = {"channels": [3, 4], "num_convs": [1, 1], "side_channels": 3}
        model, patients, loss_fn = made_up.segmentation("fcn", options, 4, 1)
        objective = segmentation_objective
    elif name == "sorting":
        model, patients, loss_fn = made_up.sorting(4, 1)
        objective = sorting_objective
    else:
        model, patients, loss_fn = CASES[name](4)
        objective = loss_fn
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    found = clipped_sum(model.train(), patients, loss_fn, 0.5, chunk_size=4, rules=LAYER_RULES)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # the hooks stumble over it
    hooked = GradSampleModule(model, loss_reduction="sum")
    # One slice a patient, and channels not last: the hooks' gradients of a convolution are wrong
    # there (Opacus 1.6.0 takes its input for contiguous), by as much as they are large.
    flat = patients if name == "tabular" else {k: t.flatten(0, 1) for k, t in patients.items()}
    objective(hooked, flat).sum().backward()
    each = {n.removeprefix("_module."): p.grad_sample for n, p in hooked.named_parameters()}
    norms = torch.sqrt(sum(g.flatten(1).square().sum(1) for g in each.values()))
    factors = (0.5 / norms).clamp(max=1)
    expected = {n: torch.einsum("p,p...->...", factors, g) for n, g in each.items()}
    assert distance(found.gradients, expected) <= 1e-5
    torch.testing.assert_close(found.norms.float(), norms, rtol=1e-5, atol=0)


def adversaries(name: str, patients: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return patients made to change as much as they can, (1, ...) each."""
    first = one(patients, 0)
    found = []
    for factor in (1e3, 1e12, 1e38, float("inf"), float("nan")):
        image = (
            first["images"] * factor if factor < 1e38 else torch.full_like(first["images"], factor)
        )
        found.append({**first, "images": image})
    if "tabular" in first:
        for size in (50.0, 1e6, -1e30):
            found.append({**first, "tabular": torch.full_like(first["tabular"], size)})
        head = choose_head(name.removeprefix("head "))
        for months in (1e-6, 1e5):
            for event in range(head.num_causes + 1):
                targets = head.targets(np.array([months]), np.array([event]), made_up.CUTS)
                rows = {key: torch.from_numpy(values) for key, values in targets.items()}
                found.append(
                    {**first, **rows, "slice_present": torch.ones_like(first["slice_present"])}
                )
    if "labels" in first:
        found.append({**first, "labels": torch.full_like(first["labels"], 255)})
        found.append({**first, "labels": torch.full_like(first["labels"], 3)})
    return found


LOSSES = ["unet", "sorting", *(name for name in CASES if name.startswith("head"))]


@pytest.mark.parametrize(
    ("name", "way"), [("head aft_weibull", "vmap"), *((name, "layers") for name in LOSSES)]
)
def test_no_patient_changes_the_sum_by_more_than_the_bound(name: str, way: str) -> None:
    model, patients, loss_fn = CASES[name](2)
    clip_norm = 0.1
    with PatientGradients(model, loss_fn, **WAYS[way]) as gradients:
        without = gradients.clipped_sum(patients, clip_norm)
        assert gradients.fast == (way == "layers")
        for added in adversaries(name, patients):
            more = {key: torch.cat([patients[key], added[key]]) for key in patients}
            found = gradients.clipped_sum(more, clip_norm)
            assert all(bool(g.isfinite().all()) for g in found.gradients.values())
            assert distance(found.gradients, without.gradients) <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_twelve_slices_are_one_patient(way: str) -> None:
    model, patients, loss_fn = made_up.segmentation("unet", {"channels": [4, 6]}, 2, 12)
    # All slices alike, so that they pull in one direction: clipped apart they would add up.
    patients = {key: tensor[:, :1].expand_as(tensor).clone() for key, tensor in patients.items()}
    found = clipped_sum(model, one(patients, 0), loss_fn, 0.01, chunk_size=1)
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert float(found.norms) > 0.01
    assert distance(found.gradients, total) == pytest.approx(0.01, rel=1e-5)
    with PatientGradients(model, loss_fn, **WAYS[way]) as gradients:
        assert distance(gradients.clipped_sum(one(patients, 1), 0.01).gradients, total) <= 0.0101


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_that_is_not_finite_adds_zero_and_no_error(way: str) -> None:
    model, patients, loss_fn = CASES["unet"](4)
    patients["images"][2, 0, 0, 0, 0] = float("nan")
    rest = {name: tensor[[0, 1, 3]] for name, tensor in patients.items()}
    with PatientGradients(model, loss_fn, **WAYS[way]) as gradients:
        found = gradients.clipped_sum(patients, 1.0)
    expected, _ = brute_force(model, rest, loss_fn, 1.0)
    assert distance(found.gradients, expected) <= 1e-5
    assert bool(found.norms[2].isnan())


@pytest.mark.parametrize("way", WAYS)
def test_nobody_adds_nothing(way: str) -> None:
    model, patients, loss_fn = CASES["prognosis"](3)
    nobody = {name: tensor[:0] for name, tensor in patients.items()}
    with PatientGradients(model, loss_fn, **WAYS[way]) as gradients:
        found = gradients.clipped_sum(nobody, 1.0)
    assert {name: g.shape for name, g in found.gradients.items()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    assert not any(bool(g.any()) for g in found.gradients.values())
    assert found.norms.shape == found.loss.shape == (0,)


@pytest.mark.parametrize("way", WAYS)
def test_the_model_is_left_alone_and_the_same_patients_give_the_same_bits(way: str) -> None:
    model, patients, loss_fn = CASES["unet"](4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with PatientGradients(model, loss_fn, **WAYS[way]) as gradients:
        first, second = (gradients.clipped_sum(patients, 1.0) for _ in range(2))
    assert all(torch.equal(first.gradients[n], second.gradients[n]) for n in first.gradients)
    assert all(torch.equal(before[n], value) for n, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_that_change_between_steps_are_followed() -> None:
    model, patients, loss_fn = CASES["prognosis"](4)
    for way in WAYS:
        with PatientGradients(model, loss_fn, **WAYS[way]) as gradients:
            gradients.clipped_sum(patients, 1.0)
            made_up.moved(model, seed=5)
            found = gradients.clipped_sum(patients, 1.0)
        expected, _ = brute_force(model, patients, loss_fn, 1.0)
        assert distance(found.gradients, expected) <= 1e-5, way


def test_frozen_weights_have_no_gradient_and_do_not_count_in_the_norm() -> None:
    model, patients, loss_fn = CASES["unet"](3)
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    sums: list[ClippedSum] = []
    for options in WAYS.values():
        with PatientGradients(model, loss_fn, **options) as gradients:
            sums.append(gradients.clipped_sum(patients, 1e-3))
    for found in sums:
        assert set(found.gradients) == wanted
        assert distance(found.gradients, sums[0].gradients) <= 1e-8
        torch.testing.assert_close(found.norms, sums[0].norms, rtol=1e-5, atol=0)


def test_each_patient_has_dropout_of_their_own_in_every_way() -> None:
    model, patients, loss_fn = CASES["prognosis"](2)
    same = {
        name: tensor[1:].expand(8, *tensor.shape[1:]).clone() for name, tensor in patients.items()
    }
    model.train()
    for way, options in WAYS.items():
        with PatientGradients(model, loss_fn, **options) as gradients:
            norms = gradients.clipped_sum(same, 1.0).norms
        assert len(set(norms.tolist())) > 2, way


def test_a_wrong_rule_is_found_out_and_not_used() -> None:
    model, patients, loss_fn = CASES["unet"](4)
    expected, _ = brute_force(model, patients, loss_fn, 1.0)

    def wrong(layer: nn.Module, *call: object) -> dict[str, Tensor]:
        grads = RULES[nn.ConvTranspose2d](layer, *call)  # type: ignore[arg-type]
        return {**grads, "weight": 1.01 * grads["weight"]}

    def broken(layer: nn.Module, *call: object) -> dict[str, Tensor]:
        raise RuntimeError("a layer it does not know")

    for rule in (wrong, broken):
        rules = {**LAYER_RULES, nn.ConvTranspose2d: rule}
        with PatientGradients(model, loss_fn, chunk_size=2, rules=rules) as gradients:
            found = gradients.clipped_sum(patients, 1.0)
            assert not gradients.fast
        assert distance(found.gradients, expected) <= 1e-5


def test_a_loss_that_compares_patients_is_not_taken_together() -> None:
    model, patients, _ = made_up.survival("tabular", "logistic_hazard", 5)
    head = choose_head("deephit")
    loss_fn = partial(prognosis_objective, head=head)
    alone, _ = brute_force(model, patients, loss_fn, 1.0)
    with PatientGradients(model, loss_fn, chunk_size=5, rules=LAYER_RULES) as gradients:
        found = gradients.clipped_sum(patients, 1.0)
        assert not gradients.fast
    assert distance(found.gradients, alone) <= 1e-5


class Odd(nn.Module):
    """A layer without a rule, called twice, and a vector that is added to the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(2, 2, 3, padding=1)
        self.shift = nn.Parameter(torch.zeros(2))
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.line(x))
        return self.last((self.line(y) + self.shift[..., None]).flatten(1))


def test_layers_without_a_rule_are_run_again() -> None:
    model, x = made_up.moved(Odd()), torch.randn(4, 2, 2, generator=made_up.generator(1))

    def loss_fn(network: nn.Module, patients: dict[str, Tensor]) -> Tensor:
        return network(patients["x"])[:, 0].square()

    expected, _ = brute_force(model, {"x": x}, loss_fn, 0.1)
    with PatientGradients(model, loss_fn, chunk_size=4, rules=LAYER_RULES) as gradients:
        found = gradients.clipped_sum({"x": x}, 0.1)
        assert gradients.fast
    assert distance(found.gradients, expected) <= 1e-6


def test_impossible_settings_are_refused() -> None:
    model, patients, loss_fn = CASES["tabular"](2)
    for clip_norm in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="clip_norm"):
            clipped_sum(model, patients, loss_fn, clip_norm, chunk_size=1)
    with pytest.raises(ValueError, match="chunk_size 0"):
        clipped_sum(model, patients, loss_fn, 1.0, chunk_size=0)
