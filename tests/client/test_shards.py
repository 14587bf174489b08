import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from client.shards import Shards, num_shards
from client.training import train
from protocol.errors import TrainingError
from protocol.training_config import LocalTraining
from shared_models.execution import Execution
from shared_models.losses.segmentation import dice_cross_entropy
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


@pytest.mark.parametrize("count", [1, 2])
def test_the_network_runs_in_mixed_precision_and_the_loss_does_not(count: int) -> None:
    execution, model = Execution(precision="bf16"), build("unet", NETWORK, seed=1)
    with execution.autocast():
        logits = model(BATCH["images"])
    assert logits.dtype == torch.bfloat16
    exact = dice_cross_entropy(logits.detach().double(), BATCH["labels"]).mean()
    with Shards(model, count, segmentation_objective, execution.autocast) as shards:
        assert shards.backward(BATCH) == pytest.approx(float(exact), rel=1e-6)


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


class _Memory:
    """A loss that needs more memory than there is for more than so many records."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.seen = most, error, []

    def __call__(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = segmentation_objective(model, batch)
        self.seen.append(len(loss))
        if len(loss) > self.most:
            raise self.error
        return loss


# As torch's allocator of ordinary memory says it.
ALLOCATOR = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")


@pytest.mark.parametrize("error", [MemoryError(), torch.cuda.OutOfMemoryError(), ALLOCATOR])
@pytest.mark.parametrize(("most", "parts"), [(5, 1), (3, 2), (2, 4)])
@pytest.mark.parametrize("count", [1, 2])
def test_batch_that_does_not_fit_gives_the_same_gradient_in_parts(
    error: Exception, most: int, parts: int, count: int
) -> None:
    loss, whole = _gradient(1)
    model = build("unet", NETWORK, seed=1)
    memory = _Memory(most if count == 1 else (most + 1) // 2, error)
    with Shards(model, count, memory, nullcontext) as shards:
        for _ in range(2):
            before = len(memory.seen)
            assert shards.backward(BATCH) == pytest.approx(loss, rel=1e-6)
            for one, parameter in zip(whole, model.parameters(), strict=True):
                torch.testing.assert_close(one, parameter.grad, atol=1e-6, rtol=1e-4)
        if count == 1:
            assert shards.num_parts == parts
    # The second batch is not tried whole again, and every record counts once.
    assert sum(memory.seen[before:]) == 5


@pytest.mark.parametrize("whole_batches", [False, True])
def test_batch_of_which_not_even_a_quarter_fits_is_an_honest_error(whole_batches: bool) -> None:
    model = build("unet", NETWORK, seed=1)
    memory = _Memory(1, MemoryError())
    parts = 1 if whole_batches else 4
    with (
        Shards(model, 1, memory, nullcontext, whole_batches=whole_batches) as shards,
        pytest.raises(TrainingError, match=rf"5 records does not fit .* in {parts} part"),
    ):
        shards.backward(BATCH)
    assert memory.seen == [5] if whole_batches else memory.seen[:3] == [5, 3, 2]


def test_training_short_of_memory_ends_at_the_same_weights() -> None:
    def trained(most: int) -> tuple[int, list[torch.Tensor]]:
        model = build("unet", NETWORK, seed=1)
        summary = train(
            model,
            BATCH,
            _Memory(most, MemoryError()),
            LocalTraining(epochs=2, batch_size=5, augment=False, optimizer="sgd"),
            learning_rate=0.01,
            rng=np.random.default_rng(0),
            execution=Execution(threads=1),
        )
        return summary.num_steps, [p.detach() for p in model.parameters()]

    steps, whole = trained(5)
    assert (steps, trained(3)[0]) == (2, 2)
    for one, other in zip(whole, trained(3)[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
