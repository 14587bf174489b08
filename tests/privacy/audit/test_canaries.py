"""Canaries: each adds the whole clipping norm at a weight of its own, and nothing elsewhere."""

import numpy as np
import pytest
import torch
from torch import nn

from privacy.audit.canaries import (
    CANARY,
    add_canaries,
    canary_loss,
    choose_coordinates,
    flip_coins,
    score_updates,
)
from privacy.gradients import clipped_sum


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    # A frozen weight is no coordinate.
    model[0].bias.requires_grad_(False)
    return model


def squared(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    assert set(batch) == {"x", "y"}
    return (model(batch["x"])[:, 0] - batch["y"]) ** 2


def patients(number: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(number, 6, generator=generator),
        "y": torch.randn(number, generator=generator),
    }


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_a_canary_adds_the_norm_at_its_own_weight(chunk_size: int) -> None:
    model, rng = network(), np.random.default_rng(0)
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    coordinates = choose_coordinates(model, 12, rng)
    included = flip_coins(12, rng)
    assert 0 < included.sum() < 12
    records = add_canaries(patients(5), coordinates, included)
    assert records[CANARY].tolist() == [-1] * 5 + coordinates[included].tolist()
    loss = canary_loss(squared, 50.0)
    with_them = clipped_sum(model, records, loss, 0.7, chunk_size=chunk_size)
    without = clipped_sum(model, patients(5), squared, 0.7, chunk_size=chunk_size)
    np.testing.assert_allclose(with_them.norms[5:].numpy(), 50.0, rtol=1e-6)
    scores = score_updates([with_them.gradients], names, coordinates)
    scores -= score_updates([without.gradients], names, coordinates)
    np.testing.assert_allclose(scores, 0.7 * included, atol=1e-6)
    total = sum(float(value.sum()) for value in with_them.gradients.values())
    total -= sum(float(value.sum()) for value in without.gradients.values())
    assert total == pytest.approx(0.7 * included.sum(), rel=1e-5)


def test_scores_add_up_over_steps() -> None:
    released = [{"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}] * 3
    assert score_updates(released, ["a", "b"], np.array([2, 0])).tolist() == [9.0, 3.0]


def test_more_canaries_than_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="36 canaries need as many weights; the network has 35"):
        choose_coordinates(nn.Linear(6, 5), 36, np.random.default_rng(0))
