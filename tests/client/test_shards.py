import copy
from contextlib import nullcontext

import pytest
import torch

from client.shards import Shards, num_shards
from shared_models.execution import Execution
from shared_models.networks import build
from shared_models.objectives import segmentation_objective

GENERATOR = torch.Generator().manual_seed(3)
BATCH = {
    "images": torch.rand(5, 1, 32, 32, generator=GENERATOR),
    "labels": torch.randint(0, 4, (5, 32, 32), generator=GENERATOR),
}
NETWORK = {"channels": (4, 8, 8)}


def _gradient(count: int, batch: dict[str, torch.Tensor] = BATCH) -> tuple[float, list[bytes]]:
    model = build("unet", NETWORK, seed=1)
    with Shards(model, count, segmentation_objective, nullcontext) as shards:
        loss = shards.backward(batch)
    return loss, [p.grad for p in model.parameters()]


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_shares_add_up_to_the_gradient_of_the_batch(count: int) -> None:
    loss, whole = _gradient(1)
    shared_loss, shared = _gradient(count)
    assert shared_loss == pytest.approx(loss, rel=1e-6)
    for one, other in zip(whole, shared, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_threads_do_not_change_a_bit_from_run_to_run() -> None:
    first, again = _gradient(2)[1], _gradient(2)[1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_sum_follows_the_weights_and_starts_anew_each_step() -> None:
    model = build("unet", NETWORK, seed=1)
    with Shards(model, 2, segmentation_objective, nullcontext) as shards:
        shards.backward(BATCH)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        shards.backward({name: tensor[:1] for name, tensor in BATCH.items()})
        shards.backward(BATCH)
    fresh = copy.deepcopy(model)
    fresh.zero_grad()
    segmentation_objective(fresh, BATCH).mean().backward()
    for one, other in zip(model.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4)


def test_an_error_in_a_share_reaches_the_caller() -> None:
    batch = {**BATCH, "labels": BATCH["labels"][:, :16]}
    with pytest.raises(RuntimeError, match="size"):
        _gradient(2, batch)


def test_dropout_compilation_and_a_gpu_keep_one_share() -> None:
    plain, drops = build("unet", NETWORK), build("unet", {**NETWORK, "dropout": 0.2})
    assert num_shards(plain, Execution(threads=3)) == 3
    assert num_shards(drops, Execution(threads=3)) == 1
    assert num_shards(plain, Execution(threads=3, compile=True)) == 1
    assert num_shards(plain, Execution(device="cuda", threads=3)) == 1
