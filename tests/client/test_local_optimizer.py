"""A hospital's optimizer against torch's own classes, bit for bit, and a step worked by hand."""

import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from client.local_optimizer import LocalOptimizer


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(48, 2))


def gradients(model: nn.Module, step: int) -> None:
    """Give every parameter a gradient, but in the third step none to the last weight."""
    rng = np.random.default_rng(step)
    for number, parameter in enumerate(model.parameters()):
        drawn = torch.from_numpy(rng.normal(size=tuple(parameter.shape)).astype(np.float32))
        parameter.grad = None if step == 2 and number == 4 else drawn


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("rule", ["adamw", "sgd"])
def test_the_same_bits_as_torchs_class(rule: Literal["adamw", "sgd"], decay: float) -> None:
    ours, theirs = network(3).to(memory_format=torch.channels_last), network(3)
    theirs.to(memory_format=torch.channels_last)
    optimizer = LocalOptimizer(rule, ours.parameters(), decay)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    reference: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, fused=True) if rule == "adamw" else torch.optim.SGD(groups)
    )
    for step in range(5):
        rate = 0.1 / (step + 1)
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step(rate)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
    for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, his)
    assert not torch.equal(next(ours.parameters()), next(network(3).parameters()))


def test_first_adamw_step_is_the_rate_in_the_gradients_direction() -> None:
    # After one step the corrected moments are g and g^2: w (1 - rate decay) - rate g / (|g| + eps).
    weight = nn.Parameter(torch.tensor([[2.0, -1.0]]))
    weight.grad = torch.tensor([[0.5, -4.0]])
    LocalOptimizer("adamw", [weight], 0.1).step(0.01)
    torch.testing.assert_close(weight.data, torch.tensor([[1.998 - 0.01, -0.999 + 0.01]]))


def test_sgd_decays_weights_and_leaves_biases() -> None:
    weight, bias = nn.Parameter(torch.tensor([[2.0]])), nn.Parameter(torch.tensor([2.0]))
    weight.grad, bias.grad = torch.tensor([[1.0]]), torch.tensor([1.0])
    LocalOptimizer("sgd", [weight, bias], 0.5).step(0.1)
    torch.testing.assert_close(weight.data, torch.tensor([[2.0 - 0.1 * (1.0 + 0.5 * 2.0)]]))
    torch.testing.assert_close(bias.data, torch.tensor([2.0 - 0.1]))


def test_no_step_imports_torchs_compiler() -> None:
    code = (
        "import sys, torch; from client.local_optimizer import LocalOptimizer\n"
        "p = torch.nn.Parameter(torch.ones(2, 2)); p.grad = torch.ones(2, 2)\n"
        "for rule in ('adamw', 'sgd'): LocalOptimizer(rule, [p], .1).step(.1)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
