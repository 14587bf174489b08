"""Reconstruction from one update: exact where nothing hides the patient, a poor guess with DP."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from privacy.audit.inversion import invert_first_layer, match_gradients, peak_signal_to_noise
from privacy.gradients import clipped_sum
from privacy.noise import NoiseSource, add_noise
from shared_models.networks import build
from shared_models.objectives import prognosis_objective

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("privacy_digits")


def test_psnr_by_hand() -> None:
    truth = torch.full((4,), 0.5)
    assert peak_signal_to_noise(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-5)
    assert peak_signal_to_noise(truth, truth) == pytest.approx(300.0)
    # Cut to the range in which images lie: half the peak off, and no more.
    assert peak_signal_to_noise(truth + 100, truth) == pytest.approx(6.0206, abs=1e-3)


def told_row(seed: int, noise: NoiseSource | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a tabular survival network's first layer tells of a patient, and the truth."""
    options = {"num_tabular": 9, "num_intervals": 6, "dropout": 0.0, "field_dropout": 0.0}
    model = build("tabular", options, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    # Not the zeros that training starts from, through which nothing comes back.
    nn.init.normal_(model.body[-1].weight, generator=generator)
    patient = {
        "tabular": torch.randn(1, 9, generator=generator),
        "missing": torch.zeros(1, 9),
        "interval": torch.tensor([3]),
        "event": torch.tensor([1.0]),
    }
    summed = clipped_sum(model, patient, prognosis_objective, 1.0, chunk_size=1)
    released = summed.gradients if noise is None else add_noise(summed.gradients, 1.0, noise)
    found = invert_first_layer(released["body.0.weight"], released["body.0.bias"])
    # Standardised values, ten standard deviations taken for the range of a picture.
    return (found[:9] + 5) / 10, (patient["tabular"][0] + 5) / 10


def test_a_first_layer_tells_the_patients_row(digits: ModuleType) -> None:
    # A patient's laboratory values, to the digits of float32: clipping alone hides nothing.
    assert min(peak_signal_to_noise(*told_row(seed, None)) for seed in range(10)) >= 60
    hidden, guessed = [], []
    for seed in range(10):
        found, truth = told_row(seed, digits.RepeatableNoise(seed))
        hidden.append(peak_signal_to_noise(found, truth))
        guessed.append(peak_signal_to_noise(torch.full_like(truth, 0.5), truth))
    assert sum(hidden) < sum(guessed) + 10


def test_an_idle_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="zero everywhere"):
        invert_first_layer(torch.zeros(2, 3), torch.zeros(2))


def test_images_come_back_without_privacy_and_not_with_it(digits: ModuleType) -> None:
    for index in (0, 7):
        found, guess = digits.invert_digit(index, noise_multiplier=None)
        assert found >= 60
        hidden, same_guess = digits.invert_digit(index, noise_multiplier=1.0)
        assert same_guess == guess
        assert hidden < guess + 1


def test_a_scaled_gradient_is_matched_by_its_direction() -> None:
    torch.manual_seed(3)
    # Small, so that tanh bends and does not saturate.
    weight = (torch.randn(30, 16, dtype=torch.float64) / 4).requires_grad_(True)
    truth = torch.rand(1, 1, 4, 4, dtype=torch.float64)

    def gradient_of(image: torch.Tensor) -> list[torch.Tensor]:
        loss = torch.tanh(image.flatten(1) @ weight.T).square().sum()
        return list(torch.autograd.grad(loss, [weight], create_graph=True))

    released = [0.01 * gradient.detach() for gradient in gradient_of(truth)]
    start = torch.full_like(truth, 0.5)
    found = match_gradients(gradient_of, released, start, distance="cosine", steps=60)
    assert peak_signal_to_noise(found, truth) > 60
