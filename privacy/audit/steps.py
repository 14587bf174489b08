"""The steps of private training, each one's release kept: what a server sees that reads every step.

The strongest reader the accountant reckons with sees not only the weights at the end but the noised
sum of every step. The steps are made of the very parts that train (`privacy.sampling`,
`privacy.gradients`, `privacy.noise`), handed in as functions, so that an audit can be audited: with
a wrong part it has to raise the alarm.

Letters: P patients of a step, N in all.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from privacy.gradients import ClippedSum, PatientLoss, clipped_sum
from privacy.noise import NoiseSource, add_noise
from privacy.sampling import poisson_sample

__all__ = ["AddNoise", "SumGradients", "released_steps"]

SumGradients = Callable[[nn.Module, Mapping[str, Tensor], PatientLoss, float], ClippedSum]
AddNoise = Callable[[Mapping[str, Tensor], float, NoiseSource], dict[str, Tensor]]

CHUNK = 256


def _sum(
    model: nn.Module, patients: Mapping[str, Tensor], loss_fn: PatientLoss, clip_norm: float
) -> ClippedSum:
    return clipped_sum(model, patients, loss_fn, clip_norm, chunk_size=CHUNK)


def released_steps(
    model: nn.Module,
    patients: Mapping[str, Tensor],
    loss_fn: PatientLoss,
    source: NoiseSource,
    *,
    clip_norm: float,
    noise_multiplier: float,
    sampling_rate: float,
    num_steps: int,
    learning_rate: float,
    expected_patients: float | None = None,
    sum_gradients: SumGradients = _sum,
    noise: AddNoise = add_noise,
) -> Iterator[dict[str, Tensor]]:
    """Train the model in place by DP-SGD, and yield the noised sum of every step.

    Parameters
    ----------
    patients : mapping of str to Tensor
        (N, ...) each.
    source : NoiseSource
        Draws who joins a step, and the noise.
    clip_norm, noise_multiplier, sampling_rate : float
        C, sigma and q: noise of standard deviation ``sigma C`` on the sum of the clipped gradients
        of the patients who joined, each with chance q.
    num_steps : int
        T.
    learning_rate : float
        Of the step along the noised sum divided by the patients to be expected.
    expected_patients : float, optional
        q N by default. An audit flips coins over who is in the data, and must not divide by a
        number that tells how many are.
    sum_gradients, noise : callable
        The parts under audit; the project's own by default.

    Yields
    ------
    dict of str to Tensor
        By name of the trained weight, before the division.
    """
    number = len(next(iter(patients.values())))
    expected = sampling_rate * number if expected_patients is None else expected_patients
    weights = {name: w for name, w in model.named_parameters() if w.requires_grad}
    for _ in range(num_steps):
        rows = torch.from_numpy(poisson_sample(number, sampling_rate, source))
        drawn = {name: values[rows] for name, values in patients.items()}
        summed = sum_gradients(model, drawn, loss_fn, clip_norm)
        released = noise(summed.gradients, noise_multiplier * clip_norm, source)
        with torch.no_grad():
            for name, weight in weights.items():
                weight -= (learning_rate / expected * released[name]).to(weight.dtype)
        yield released
