"""Claim: a training step is at least 1.7x faster than MONAI's same network in its plain loop.

Both sides train a U-Net with channels 16-256 and residual units on batches of 16 images of 128 x
128 (18.6 GFLOP a step for MONAI's). MONAI's ``UNet`` runs with its own ``DiceCELoss`` and
``torch.optim.Adam`` in fp32, as its tutorials write the loop; ours runs in ``client.training`` at
the precision that ``auto`` chooses on this machine. After every step of ours follows one of theirs,
so that whatever else the machine does falls on both. Then both train on synthetic hearts for the
same number of steps, and the Dice on unseen ones is printed.

Run on a quiet machine: ``python benchmarks/training_step.py [--threads 2] [--variants]``
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet as PeerUNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from client.training import train
from protocol.training_config import LocalTraining
from shared_models.execution import Execution
from shared_models.inference import predict_labels
from shared_models.labels import CLASS_NAMES, LV, MYO, RV
from shared_models.metrics.overlap import dice
from shared_models.networks import build
from shared_models.objectives import segmentation_objective

BATCH_SIZE, SIZE, NUM_CLASSES = 16, 128, 4
WARM_UP = 3
LEARNING_RATE = 3e-3
PEER_CHANNELS = (16, 32, 64, 128, 256)


def hearts(count: int, seed: int) -> dict[str, Tensor]:
    """Draw noisy images like a short axis: cavity, darker wall around it, crescent beside it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    images = np.empty((count, 1, SIZE, SIZE), np.float32)
    labels = np.zeros((count, SIZE, SIZE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        centre = rng.uniform(48, 80, 2)
        inner, wall = rng.uniform(10, 20), rng.uniform(5, 9)
        radius = np.hypot(y - centre[0], x - centre[1])
        right = np.hypot(y - centre[0], x - centre[1] + inner + wall) < inner + wall
        label[right] = RV
        label[radius < inner + wall] = MYO
        label[radius < inner] = LV
        level = np.array([rng.uniform(0.1, 0.5), 0.8, 0.3, 0.75], np.float32)
        image[0] = level[label] + rng.normal(0, 0.15, label.shape)
    return {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}


def peer_network() -> nn.Module:
    """Return MONAI's network of the claim."""
    return PeerUNet(2, 1, NUM_CLASSES, PEER_CHANNELS, (2, 2, 2, 2), num_res_units=2)


def peer_step(model: nn.Module) -> Callable[[Tensor, Tensor], None]:
    """Return one step of the plain loop."""
    loss_fn = DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    def step(images: Tensor, labels: Tensor) -> None:
        optimiser.zero_grad()
        loss = loss_fn(model(images), labels[:, None])
        loss.backward()
        optimiser.step()
        loss.item()

    return step


def gigaflop(model: nn.Module) -> float:
    """Return the arithmetic of one forward and backward pass, GFLOP."""
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(BATCH_SIZE, 1, SIZE, SIZE)).sum().backward()
    return counter.get_total_flops() / 1e9


def time_steps(execution: Execution, repeats: int) -> dict[str, float]:
    """Return the median seconds of a step of both sides, taking turns, and those of our first."""
    batch = hearts(BATCH_SIZE, seed=1)
    images, labels = batch["images"], batch["labels"].long()
    step = peer_step(peer_network())
    seconds: dict[str, list[float]] = {"monai": [], "ours": []}
    start = time.perf_counter()

    def take_turns(done: int, total: int, loss: float) -> None:
        nonlocal start
        seconds["ours"].append(time.perf_counter() - start)
        ours = torch.get_num_threads()
        # Ours hands each thread a share of the batch; the peer's operations split themselves.
        torch.set_num_threads(execution.threads)
        start = time.perf_counter()
        step(images, labels)
        seconds["monai"].append(time.perf_counter() - start)
        torch.set_num_threads(ours)
        start = time.perf_counter()

    train(
        build("unet", {}),
        batch,
        segmentation_objective,
        LocalTraining(batch_size=BATCH_SIZE, epochs=repeats + WARM_UP, augment=False),
        learning_rate=LEARNING_RATE,
        rng=np.random.default_rng(0),
        execution=execution,
        on_step=take_turns,
    )
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in seconds.items()}
    return medians | {"first": seconds["ours"][0]}


def dice_after(
    model: nn.Module, fit: Callable[[dict[str, Tensor]], None], execution: Execution
) -> float:
    """Train on 128 hearts and return the mean Dice of the three classes on 32 others."""
    fit(hearts(128, seed=2))
    test = hearts(32, seed=3)
    found = predict_labels(model, test["images"], execution).numpy()
    truth = test["labels"].numpy()
    return float(np.mean([dice(found == label, truth == label) for label in CLASS_NAMES]))


def compare_dice(execution: Execution, epochs: int) -> dict[str, float]:
    """Return the Dice of both sides after the same steps, each predicting as it trained."""
    torch.manual_seed(0)
    peer, ours = peer_network(), build("unet", {})
    step, rng = peer_step(peer), np.random.default_rng(0)

    def fit_peer(records: dict[str, Tensor]) -> None:
        for _ in range(epochs):
            for rows in np.array_split(rng.permutation(128), 128 // BATCH_SIZE):
                step(records["images"][rows], records["labels"][rows].long())

    def fit_ours(records: dict[str, Tensor]) -> None:
        options = LocalTraining(batch_size=BATCH_SIZE, epochs=epochs, augment=False)
        train(
            ours,
            records,
            segmentation_objective,
            options,
            learning_rate=LEARNING_RATE,
            rng=rng,
            execution=execution,
        )

    return {
        "monai": dice_after(peer, fit_peer, Execution(threads=execution.threads)),
        "ours": dice_after(ours, fit_ours, execution),
    }


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=10, help="of the Dice check; 0 leaves it out")
    parser.add_argument("--variants", action="store_true", help="also what auto leaves out")
    arguments = parser.parse_args()
    threads = arguments.threads
    torch.set_num_threads(threads)
    models = {"monai": peer_network(), "ours": build("unet", {})}
    print({name: f"{gigaflop(model):.1f} GFLOP a step" for name, model in models.items()})
    chosen = Execution.resolve("cpu", threads=threads)
    print("auto chooses", chosen)
    settings = [chosen]
    if arguments.variants:
        every = itertools.product((False, True), ("fp32", "bf16"))
        others = (
            Execution.resolve("cpu", precision, threads, compiled) for compiled, precision in every
        )
        settings += [execution for execution in others if execution != chosen]
    titles = f"{'ours, ms':>10}{'monai, ms':>11}{'times faster':>14}{'first step, s':>15}"
    print(f"{'ours with':20}{titles}")
    for execution in settings:
        name = execution.precision + (", compiled" if execution.compile else "")
        seconds = time_steps(execution, arguments.steps)
        ours, theirs = seconds["ours"], seconds["monai"]
        figures = f"{ours * 1e3:10.0f}{theirs * 1e3:11.0f}{theirs / ours:14.2f}"
        print(f"{name:20}{figures}{seconds['first']:15.1f}", flush=True)
    if arguments.epochs:
        found = compare_dice(chosen, arguments.epochs)
        print("Dice after the same steps:", {k: round(v, 4) for k, v in found.items()})


if __name__ == "__main__":
    main()
