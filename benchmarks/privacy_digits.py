"""Small problems on scikit-learn's digits on which the attacks are known to work.

An attack that finds nothing says something only if it would have found it. Here networks are small
enough to be trained by the dozen, and parts of private training are exchanged for wrong ones.
"""

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from privacy.audit.canaries import (
    CANARY,
    add_canaries,
    canary_loss,
    choose_coordinates,
    flip_coins,
    score_updates,
)
from privacy.audit.inversion import match_gradients, peak_signal_to_noise
from privacy.audit.membership import confidence_of
from privacy.audit.one_run import OneRunAudit, audit_one_run
from privacy.audit.steps import released_steps
from privacy.gradients import ClippedSum, PatientLoss, clipped_sum
from privacy.noise import NoiseSource, add_noise

__all__ = [
    "BUGS",
    "CLAIM",
    "CLAIM_DELTA",
    "Losses",
    "RepeatableNoise",
    "audit_once",
    "digit_patients",
    "invert_digit",
    "membership_losses",
    "one_loss",
    "patient_loss",
]

SLICES = 12
NUM_PATIENTS, NUM_CANARIES = 100, 100
CLAIM = {"noise_multiplier": 11.0, "sampling_rate": 0.8, "num_steps": 16}
"""Of the audited training; epsilon about 1.1 at `CLAIM_DELTA`."""
CLAIM_DELTA = 1e-5
# Twice what the canaries' gradients need to be clipped whatever the clipping norm is.
STRENGTH = 100.0


def _digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels.astype(np.int64)


def digit_patients() -> dict[str, Tensor]:
    """Return 100 patients, each with twelve images (100, 12, 64) of one digit, (100, 12)."""
    images, labels = _digits()
    rows = [
        np.flatnonzero(labels == digit)[: 10 * SLICES].reshape(10, SLICES) for digit in range(10)
    ]
    chosen = np.concatenate(rows)
    return {"images": torch.from_numpy(images[chosen]), "labels": torch.from_numpy(labels[chosen])}


def patient_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the mean cross-entropy over a patient's images, (P,)."""
    labels = batch["labels"]
    logits = model(batch["images"].flatten(0, 1))
    losses = functional.cross_entropy(logits, labels.flatten(), reduction="none")
    return losses.reshape(labels.shape).mean(dim=1)


def _made(width: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def _slices_clipped(
    model: nn.Module, patients: Mapping[str, Tensor], loss_fn: PatientLoss, clip_norm: float
) -> ClippedSum:
    """Clip every slice instead of every patient: one patient may add twelve times the norm."""
    slices = {
        name: values.repeat_interleave(SLICES) if name == CANARY else values.flatten(0, 1)[:, None]
        for name, values in patients.items()
    }
    return clipped_sum(model, slices, loss_fn, clip_norm, chunk_size=256)


def _unclipped(
    model: nn.Module, patients: Mapping[str, Tensor], loss_fn: PatientLoss, clip_norm: float
) -> ClippedSum:
    del clip_norm
    return clipped_sum(model, patients, loss_fn, 1e9, chunk_size=64)


def _scaled_noise(
    factor: float, values: Mapping[str, Tensor], sd: float, source: NoiseSource
) -> dict[str, Tensor]:
    return add_noise(values, factor * sd, source)


BUGS: dict[str, dict[str, Any]] = {
    "correct": {},
    "noise 10 times too small": {"noise": partial(_scaled_noise, 0.1)},
    # As if the noised sum's noise, and not the sum, were divided by the patients to be expected.
    "noise divided by the batch": {"noise": partial(_scaled_noise, 1 / 120)},
    "slices clipped, not patients": {"sum_gradients": _slices_clipped},
    "no clipping": {"sum_gradients": _unclipped},
}
"""Wrong parts of private training, by what is wrong with them."""


def audit_once(bug: str, seed: int) -> OneRunAudit:
    """Train once with canaries by the project's own steps, with the parts of `BUGS` exchanged."""
    rng = np.random.default_rng(seed)
    model = _made(32, seed)
    coordinates = choose_coordinates(model, NUM_CANARIES, rng)
    included = flip_coins(NUM_CANARIES, rng)
    records = add_canaries(digit_patients(), coordinates, included)
    names = [name for name, _ in model.named_parameters()]
    with tempfile.TemporaryDirectory() as folder:
        steps = released_steps(
            model,
            records,
            canary_loss(patient_loss, STRENGTH),
            NoiseSource(Path(folder) / "noise.json"),
            clip_norm=1.0,
            learning_rate=0.5,
            expected_patients=CLAIM["sampling_rate"] * (NUM_PATIENTS + NUM_CANARIES / 2),
            **CLAIM,
            **BUGS[bug],
        )
        scores = score_updates(steps, names, coordinates)
    return audit_one_run(scores, included, delta=CLAIM_DELTA)


def one_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the cross-entropy of each image, (P,); every image is a patient."""
    return functional.cross_entropy(model(batch["images"]), batch["labels"], reduction="none")


class RepeatableNoise(NoiseSource):
    """Noise from a seed, so that a figure can be repeated; who knows the seed can take it off."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def random_bytes(self, count: int) -> bytes:
        """Return the next bytes of the generator."""
        return self._rng.bytes(count)


@dataclass(frozen=True)
class Losses:
    """Models trained alike on random halves of the same records (M models, N records).

    Attributes
    ----------
    confidences : ndarray
        (M, N), `privacy.audit.membership.confidence_of` the loss.
    members : ndarray
        (M, N) bool.
    accuracy : float
        Mean over models, on other images.
    """

    confidences: np.ndarray
    members: np.ndarray
    accuracy: float


def membership_losses(
    private: Mapping[str, float] | None, *, num_models: int = 24, seed: int = 0
) -> Losses:
    """Train models on about 200 of 400 digits each, a fifth of the labels redrawn at random.

    Wrong labels are what a network can only know by heart.

    Parameters
    ----------
    private : mapping or None
        ``noise_multiplier``, ``sampling_rate``, ``num_steps`` and ``learning_rate`` of DP-SGD with
        clipping norm 1; None trains 300 steps of plain SGD with momentum.
    """
    rng = np.random.default_rng(seed)
    images, true = _digits()
    order = rng.permutation(len(images))
    pool, rest = order[:400], order[400:]
    labels = true[pool]
    redrawn = rng.random(400) < 0.2
    labels[redrawn] = rng.integers(0, 10, redrawn.sum())
    records = {"images": torch.from_numpy(images[pool]), "labels": torch.from_numpy(labels)}
    others = {"images": torch.from_numpy(images[rest]), "labels": torch.from_numpy(true[rest])}
    members = _random_halves(num_models, 400, rng)
    confidences, right = [], []
    for index in range(num_models):
        model = _made(32, seed * 1000 + index)
        inside = {name: values[members[index]] for name, values in records.items()}
        if private is None:
            _train(model, inside, rng)
        else:
            source = RepeatableNoise(seed * 1000 + index)
            for _ in released_steps(model, inside, one_loss, source, clip_norm=1.0, **private):
                pass
        with torch.no_grad():
            confidences.append(confidence_of(one_loss(model, records).numpy()))
            right.append((model(others["images"]).argmax(1) == others["labels"]).double().mean())
    return Losses(np.stack(confidences), members, float(np.mean(right)))


def _random_halves(num_models: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw coins, (M, N), those of a record again until three models at least have it and lack it.

    A design with exactly half of the models for each record would tell which half is one short.
    """
    members = rng.random((num_models, number)) < 0.5
    while True:
        counts = members.sum(axis=0)
        poor = (counts < 3) | (counts > num_models - 3)
        if not poor.any():
            return members
        members[:, poor] = rng.random((num_models, poor.sum())) < 0.5


def _train(model: nn.Module, records: Mapping[str, Tensor], rng: np.random.Generator) -> None:
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(300):
        rows = torch.from_numpy(rng.choice(len(records["labels"]), 32))
        optimiser.zero_grad()
        one_loss(model, {name: values[rows] for name, values in records.items()}).mean().backward()
        optimiser.step()


def invert_digit(index: int, *, noise_multiplier: float | None) -> tuple[float, float]:
    """Reconstruct one digit from the gradient of a small convolutional network.

    Parameters
    ----------
    index : int
        Row of the data.
    noise_multiplier : float or None
        sigma of the released gradient, clipped to norm 1; None releases the gradient itself.

    Returns
    -------
    tuple of float
        PSNR of the reconstruction and of the mean of all digits, dB.
    """
    images, labels = _digits()
    stack = torch.from_numpy(images).double().reshape(-1, 1, 8, 8)
    truth, label = stack[index : index + 1], torch.from_numpy(labels[index : index + 1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(index)
        model = _leaking_network()
        start = torch.rand(truth.shape, dtype=torch.float64)
    weights = list(model.parameters())

    def gradient_of(guess: Tensor) -> list[Tensor]:
        loss = one_loss(model, {"images": guess, "labels": label}).sum()
        return list(torch.autograd.grad(loss, weights, create_graph=True))

    if noise_multiplier is None:
        released = [gradient.detach() for gradient in gradient_of(truth)]
        found = match_gradients(gradient_of, released, start, steps=60)
    else:
        record = {"images": truth.float(), "labels": label}
        summed = clipped_sum(copy.deepcopy(model).float(), record, one_loss, 1.0, chunk_size=1)
        noised = add_noise(summed.gradients, noise_multiplier, RepeatableNoise(index))
        # Clipping scales the gradient, so only its direction can be matched.
        found = match_gradients(
            gradient_of, list(noised.values()), start, distance="cosine", steps=60, variation=1e-3
        )
    guess = stack.mean(dim=0, keepdim=True)
    return peak_signal_to_noise(found, truth), peak_signal_to_noise(guess, truth)


def _leaking_network() -> nn.Module:
    # Smooth, with a layer of full width: what gradient matching works best on (Zhu et al. 2019).
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 3, padding=1, stride=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(12 * 16, 10),
    ).double()
    for weight in model.parameters():
        nn.init.uniform_(weight, -0.5, 0.5)
    return model
