import numpy as np
import pytest
import torch
from torch import nn

from client.training import TrainSummary, learning_rate_at, train
from protocol.errors import PayloadError, TrainingError
from protocol.training_config import LocalTraining
from shared_models.augment import augment_segmentation
from shared_models.execution import Execution
from shared_models.networks import build
from shared_models.objectives import segmentation_objective

EXECUTION = Execution(threads=1)
UNET = {"channels": (4, 8, 8), "dropout": 0.3, "deep_supervision": True}


def _disks(count: int = 10, size: int = 32) -> dict[str, torch.Tensor]:
    """Bright disks of the three classes on a noisy ground."""
    generator = torch.Generator().manual_seed(4)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    labels = torch.zeros(count, size, size, dtype=torch.uint8)
    for index in range(count):
        for label in (1, 2, 3):
            cy, cx = torch.randint(6, size - 6, (2,), generator=generator)
            labels[index][(y - cy) ** 2 + (x - cx) ** 2 < 25] = label
    images = labels[:, None].float() / 3
    images = images + 0.05 * torch.randn(images.shape, generator=generator)
    return {"images": images, "labels": labels}


def _train(
    records: dict[str, torch.Tensor] | None = None, seed: int = 0, **changes: object
) -> tuple[dict[str, torch.Tensor], TrainSummary]:
    keywords = {name: changes.pop(name) for name in ("augment", "anchor") if name in changes}
    settings = {"epochs": 2, "batch_size": 4, "weight_decay": 0.01, **changes}
    model = build("unet", UNET)
    summary = train(
        model,
        _disks() if records is None else records,
        segmentation_objective,
        LocalTraining(**settings),  # type: ignore[arg-type]
        learning_rate=3e-3,
        rng=np.random.default_rng(seed),
        execution=EXECUTION,
        **keywords,  # type: ignore[arg-type]
    )
    return model.state_dict(), summary


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_same_seed_same_bits_with_dropout_and_augmentation() -> None:
    first, summary = _train(augment=augment_segmentation)
    torch.manual_seed(99)
    np.random.seed(99)
    again, summary_again = _train(augment=augment_segmentation)
    other, _ = _train(seed=1, augment=augment_segmentation)
    assert _same(first, again) and summary == summary_again
    assert not _same(first, other)


def test_global_random_state_is_left_as_it_was() -> None:
    before = torch.random.get_rng_state()
    _train(augment=augment_segmentation)
    assert torch.equal(before, torch.random.get_rng_state())


def test_mu_zero_is_plain_training_to_the_bit_whatever_the_anchor() -> None:
    anchor = {name: value + 1 for name, value in build("unet", UNET).state_dict().items()}
    assert _same(_train(proximal_mu=0.0, anchor=anchor)[0], _train()[0])


def test_a_larger_mu_stays_closer_to_the_start() -> None:
    start = build("unet", UNET).state_dict()
    moved = []
    for mu in (0.0, 1.0, 100.0):
        weights, _ = _train(proximal_mu=mu)
        moved.append(sum(float((weights[n] - start[n]).square().sum()) for n in start))
    assert moved[0] > moved[1] > moved[2]


def test_the_anchor_is_by_default_the_start() -> None:
    start = build("unet", UNET).state_dict()
    assert _same(_train(proximal_mu=0.1)[0], _train(proximal_mu=0.1, anchor=start)[0])
    with pytest.raises(PayloadError, match="proximal anchor has no tensor"):
        _train(proximal_mu=0.1, anchor={})


def test_it_learns() -> None:
    losses = []
    for epochs in (1, 20):
        summary = train(
            build("unet", {"channels": (8, 16, 32)}),
            _disks(32),
            segmentation_objective,
            LocalTraining(epochs=epochs, batch_size=8),
            learning_rate=1e-2,
            rng=np.random.default_rng(0),
            execution=EXECUTION,
        )
        losses.append(summary.last_loss)
    assert losses[1] < 0.6 * losses[0]


def test_every_record_counts_once_an_epoch_in_batches_of_nearly_equal_size() -> None:
    seen: list[list[int]] = []

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(batch["row"].tolist())
        return model(batch["images"])[0].flatten(1).mean(1) + batch["row"].float()

    steps: list[tuple[int, int]] = []
    summary = train(
        build("unet", UNET),
        {"images": torch.rand(9, 1, 16, 16), "row": torch.arange(9)},
        loss,
        LocalTraining(epochs=2, batch_size=4),
        learning_rate=1e-9,
        rng=np.random.default_rng(0),
        execution=EXECUTION,
        on_step=lambda done, total, _: steps.append((done, total)),
    )
    assert [len(rows) for rows in seen] == [3] * 6
    for epoch in (seen[:3], seen[3:]):
        assert sorted(row for rows in epoch for row in rows) == list(range(9))
    assert seen[:3] != seen[3:]
    assert steps == [(k, 6) for k in range(1, 7)] and summary.num_steps == 6


def test_a_step_is_adamw_without_decay_of_vectors() -> None:
    model, peer = nn.Linear(3, 2), nn.Linear(3, 2)
    peer.load_state_dict(model.state_dict())
    records = {"x": torch.rand(4, 3)}
    train(
        model,
        records,
        lambda m, batch: m(batch["x"]).square().mean(dim=1),
        LocalTraining(batch_size=4, weight_decay=0.1, grad_clip_norm=0.01),
        learning_rate=0.1,
        rng=np.random.default_rng(0),
        execution=EXECUTION,
    )
    groups = [{"params": [peer.weight]}, {"params": [peer.bias], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.1)
    peer(records["x"]).square().mean().backward()
    nn.utils.clip_grad_norm_(peer.parameters(), 0.01)
    optimiser.step()
    torch.testing.assert_close(model.weight, peer.weight)
    torch.testing.assert_close(model.bias, peer.bias)


def test_the_rate_warms_up_peaks_and_ends_at_the_fraction() -> None:
    options = LocalTraining(warmup_fraction=0.2, final_fraction=0.1)
    rates = [learning_rate_at(step, 20, 0.5, options) for step in range(20)]
    assert rates[4] == 0.5 == max(rates) and rates[-1] == pytest.approx(0.05)
    assert rates[:5] == sorted(rates[:5]) and rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[0] == pytest.approx(0.1)
    assert learning_rate_at(0, 1, 0.5, LocalTraining()) == 0.5


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_no_weights() -> None:
    model = build("unet", UNET)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    calls: list[int] = []

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        calls.append(1)
        value = segmentation_objective(model, batch)
        return value * float("nan") if len(calls) == 3 else value

    with pytest.raises(TrainingError, match=r"The loss of batch 3 of 6 is nan, expected a finite"):
        train(
            model,
            _disks(),
            loss,
            LocalTraining(epochs=2, batch_size=4),
            learning_rate=1e-3,
            rng=np.random.default_rng(0),
            execution=EXECUTION,
        )
    assert len(calls) == 3 and _same(model.state_dict(), start)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    with pytest.raises(TrainingError, match="gradient norm of batch 1 of 1 is"):
        train(
            model,
            {"x": torch.ones(2, 1)},
            lambda m, batch: m(batch["x"]).sqrt().mean(),
            LocalTraining(),
            learning_rate=1e-3,
            rng=np.random.default_rng(0),
            execution=EXECUTION,
        )


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ({}, "no training record"),
        ({"x": torch.zeros(0, 1)}, "no training record"),
        ({"x": torch.zeros(2, 1), "y": torch.zeros(3)}, "disagree on the number of records"),
    ],
)
def test_records_are_checked_at_the_door(records: dict[str, torch.Tensor], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        train(
            nn.Linear(1, 1),
            records,
            lambda m, batch: m(batch["x"]).mean(),
            LocalTraining(),
            learning_rate=1e-3,
            rng=np.random.default_rng(0),
            execution=EXECUTION,
        )
