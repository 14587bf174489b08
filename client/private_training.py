"""Training under differential privacy (DP-SGD): what leaves would be nearly the same without any
one patient.

Each step draws patients by Poisson sampling, sums their clipped gradients, adds Gaussian noise and
divides by the size that is to be expected (Abadi et al., ACM CCS 2016, algorithm 1). The unit is
the patient: all slices, frames and series of one person give one gradient. Everything after the
noise (the optimiser, weight decay, FedProx's pull, SCAFFOLD's correction) sees noised numbers only
and costs no privacy.

Two hospitals are neighbours if one lacks a patient of the other, or has nothing of them to give.
The guarantee is that of the accountant for the number of steps, sigma and q of the policy; the
order of events is reserve, compute, commit, so that a crash is charged and never free.

What is random here is secret: who is drawn, which slices, dropout and augmentation, all from the
hospital's `NoiseSource`. Masks from a seed that others know, dealt out by place in the batch, would
change for everybody if one patient were missing. So a private round cannot be repeated bit by bit;
given the draws it is as deterministic as any other.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from client.layer_rules import LAYER_RULES
from client.local_optimizer import LocalOptimizer
from client.training import Augment, learning_rate_at
from privacy.accountant import Spend
from privacy.gradients import PatientGradients, PatientLoss
from privacy.ledger import Ledger
from privacy.noise import NoiseSource, add_noise
from privacy.policy import PrivacyPolicy
from privacy.refusals import require_private_model
from privacy.sampling import draw_slices, poisson_sample
from protocol.errors import TrainingError
from protocol.training_config import LocalTraining
from shared_models.execution import Execution
from shared_models.losses.proximal import proximal_term

__all__ = ["PrivateSummary", "mean_over_slices", "train_privately"]

# Patients, or slices of patients, whose maps one thread holds at once: enough for fast convolutions
# and few enough to need no more memory than training on a batch without privacy
# (benchmarks/private_step.py).
PATIENTS_AT_ONCE = 8
SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class PrivateSummary:
    """What one call of `train_privately` did; nothing of it depends on a patient.

    Attributes
    ----------
    num_steps : int
        Steps taken: always the policy's.
    rate_sum : float
        Sum of the steps' learning rates; SCAFFOLD's ``K eta``.
    reservation : str
        The ledger's name of this spend.
    """

    num_steps: int
    rate_sum: float
    reservation: str


def mean_over_slices(loss_fn: PatientLoss) -> PatientLoss:
    """Return the loss of patients, (P,), as the mean of a loss of slices over each one's S slices.

    The result takes records (P, S, ...) where ``loss_fn`` takes (P S, ...).
    """

    def loss(model: nn.Module, patients: dict[str, Tensor]) -> Tensor:
        num_patients, num_slices = next(iter(patients.values())).shape[:2]
        slices = {name: _images(tensor.flatten(0, 1)) for name, tensor in patients.items()}
        return loss_fn(model, slices).unflatten(0, (num_patients, num_slices)).mean(dim=1)

    return loss


def _images(tensor: Tensor) -> Tensor:
    if tensor.ndim != 4 or tensor.shape[1] == 1:
        return tensor
    # Channels last by a copy of permuted axes: vmap has no rule for the memory format.
    return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def train_privately(
    model: nn.Module,
    patients: Mapping[str, Tensor],
    loss_fn: PatientLoss,
    policy: PrivacyPolicy,
    *,
    learning_rate: float,
    ledger: Ledger,
    study: str,
    purpose: str,
    source: NoiseSource,
    execution: Execution,
    options: LocalTraining | None = None,
    num_slices: np.ndarray | None = None,
    public_size: int | None = None,
    round_index: int | None = None,
    augment: Augment | None = None,
    correction: Mapping[str, Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> PrivateSummary:
    """Train ``model`` in place for one round, and charge it.

    Parameters
    ----------
    model : nn.Module
        Starts from the global weights; computed in float32.
    patients : mapping of str to Tensor
        One row a patient; or, with ``num_slices``, one row a slice, a patient's together.
    loss_fn : callable
        ``loss_fn(model, records)`` returns the loss of each patient, (P,), of records (P, ...), or
        (P, S, ...) with ``num_slices`` (see `mean_over_slices`).
    policy : PrivacyPolicy
        The hospital's terms: sigma, C, q, steps, slices per patient.
    learning_rate : float
        Peak rate, > 0.
    ledger : Ledger
        Charged before anything is computed.
    study, purpose : str
        What for, as the ledger notes it.
    source : NoiseSource
        The hospital's own randomness.
    options : LocalTraining, optional
        Optimiser, decay, schedule and ``proximal_mu``. Epochs and batch size are the policy's
        business (steps and q), and clipping is that of the patients.
    num_slices : ndarray, optional
        (N,) slices of each patient, >= 1, of which the policy's ``slices_per_patient`` are drawn
        (`privacy.sampling.draw_slices`).
    public_size : int, optional
        How many patients the hospital has, as it is known outside; the noised sum is divided by q
        times this. By default their number, which is then taken to be public.
    round_index : int, optional
        As the ledger notes it.
    augment : callable, optional
        ``augment(batch, generator)`` of drawn rows (slices, with ``num_slices``); must treat each
        alone.
    correction : mapping of str to Tensor, optional
        SCAFFOLD's ``c - c_i``, added to the noised gradient; c_i follows from noised weights.
    on_step : callable, optional
        Called with (steps done, steps in all) after every step; of losses it is told nothing.

    Raises
    ------
    PrivacyError
        If the network cannot be private; nothing was charged.
    BudgetError
        If the ledger declines; nothing was computed.
    TrainingError
        If the noised weights are not finite; the model then has the weights it came with.
    """
    require_private_model(model)
    steps = policy.steps_per_round
    spend = Spend(policy.noise_multiplier, policy.sampling_rate, steps)
    reservation = ledger.reserve(study, purpose, spend, policy, round_index=round_index)
    options = options or LocalTraining()
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    drawn = _Draw(patients, num_slices, policy, source, augment, execution.device)
    size = drawn.num_patients if public_size is None else public_size
    chunk_size = PATIENTS_AT_ONCE
    if num_slices is not None:
        chunk_size = max(1, SLICES_AT_ONCE // policy.slices_per_patient)
    update = _Update(model, options, execution.device, correction)
    sd, expected = policy.noise_multiplier * policy.clip_norm, policy.sampling_rate * size
    was_training = model.training
    model.to(device=execution.device, memory_format=torch.channels_last).train()
    rate_sum = 0.0
    try:
        with _engine(model, loss_fn, chunk_size, source, execution) as gradients:
            for step in range(steps):
                summed = gradients.clipped_sum(drawn(), policy.clip_norm).gradients
                noised = add_noise(summed, sd, source)
                rate = learning_rate_at(step, steps, learning_rate, options)
                update({name: total / expected for name, total in noised.items()}, rate)
                rate_sum += rate
                if on_step is not None:
                    on_step(step + 1, steps)
        if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
            model.load_state_dict(before)
            raise TrainingError(
                "The noised weights are not finite after this round; no weights were kept: lower "
                "the learning rate."
            )
    finally:
        model.train(was_training)
    ledger.commit(reservation)
    return PrivateSummary(steps, rate_sum, reservation)


@contextmanager
def _engine(
    model: nn.Module,
    loss_fn: PatientLoss,
    chunk_size: int,
    source: NoiseSource,
    execution: Execution,
) -> Iterator[PatientGradients]:
    """Yield the gradients of one machine, with dropout from the hospital's own randomness."""
    threads = execution.threads if execution.device == "cpu" else 1
    # Threads that share the patients must not split their operations as well.
    machine = replace(execution, threads=1) if threads > 1 else execution
    devices = [torch.cuda.current_device()] if execution.device == "cuda" else []
    with machine.active(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(source.seed())
        with PatientGradients(
            model, loss_fn, chunk_size=chunk_size, threads=threads, rules=LAYER_RULES
        ) as gradients:
            yield gradients


class _Draw:
    """Draws the patients of a step, and what each of them gives."""

    def __init__(
        self,
        patients: Mapping[str, Tensor],
        num_slices: np.ndarray | None,
        policy: PrivacyPolicy,
        source: NoiseSource,
        augment: Augment | None,
        device: str,
    ) -> None:
        self.records = {name: tensor.to(device) for name, tensor in patients.items()}
        self.num_slices, self.policy, self.source = num_slices, policy, source
        rows = len(next(iter(patients.values())))
        self.num_patients = rows if num_slices is None else len(num_slices)
        self.first = None if num_slices is None else np.cumsum(num_slices) - num_slices
        self.augment = augment
        self.generator = torch.Generator().manual_seed(source.seed())

    def __call__(self) -> dict[str, Tensor]:
        rows = poisson_sample(self.num_patients, self.policy.sampling_rate, self.source)
        if self.num_slices is None or self.first is None:
            return self._augmented(rows)
        per_patient = self.policy.slices_per_patient
        slices = draw_slices(self.num_slices[rows], per_patient, self.source)
        flat = self._augmented((self.first[rows][:, None] + slices).ravel())
        shape = (len(rows), per_patient)
        return {name: tensor.unflatten(0, shape) for name, tensor in flat.items()}

    def _augmented(self, rows: np.ndarray) -> dict[str, Tensor]:
        batch = {
            name: tensor[torch.from_numpy(rows).to(tensor.device)]
            for name, tensor in self.records.items()
        }
        return self.augment(batch, self.generator) if self.augment and len(rows) else batch


class _Update:
    """Moves the weights by a noised gradient: post-processing, whatever it does."""

    def __init__(
        self,
        model: nn.Module,
        options: LocalTraining,
        device: str,
        correction: Mapping[str, Tensor] | None,
    ) -> None:
        self.model, self.mu = model, options.proximal_mu
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.correction = {name: c.to(device) for name, c in (correction or {}).items()}
        self.anchor = {name: p.detach().clone().to(device) for name, p in self.trainable.items()}
        self.optimizer = LocalOptimizer(
            options.optimizer, self.trainable.values(), options.weight_decay
        )

    def __call__(self, gradient: Mapping[str, Tensor], learning_rate: float) -> None:
        for name, parameter in self.trainable.items():
            grad = gradient[name].to(parameter)
            if name in self.correction:
                grad += self.correction[name]
            parameter.grad = torch.empty_like(parameter).copy_(grad)
        if self.mu > 0:
            proximal_term(self.model, self.anchor, self.mu).backward()
        self.optimizer.step(learning_rate)
        for parameter in self.trainable.values():
            parameter.grad = None
