"""One hospital's training: steps over records in memory, from the global weights, for some epochs.

Given the same weights, records, options, generator and machine settings the result is the same to
the last bit; no global random state is read or left changed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from client.local_optimizer import LocalOptimizer
from client.shards import Loss, Shards, num_shards
from protocol.errors import TrainingError
from protocol.training_config import LocalTraining
from shared_models.execution import Execution
from shared_models.losses.proximal import proximal_term

__all__ = ["Augment", "Execution", "Loss", "TrainSummary", "learning_rate_at", "train"]

Batch = dict[str, Tensor]
Augment = Callable[[Batch, torch.Generator], Batch]


@dataclass(frozen=True)
class TrainSummary:
    """What one call of `train` did.

    Attributes
    ----------
    mean_loss : float
        Mean over all records seen, without the proximal term; lower is better.
    num_steps : int
        Optimiser steps taken.
    last_loss : float
        Loss of the last batch.
    rate_sum : float
        Sum of the steps' learning rates; SCAFFOLD's ``K eta``.
    """

    mean_loss: float
    num_steps: int
    last_loss: float
    rate_sum: float


def learning_rate_at(step: int, num_steps: int, peak: float, options: LocalTraining) -> float:
    """Return the learning rate of one step: linear warm-up, then a cosine down.

    Parameters
    ----------
    step : int
        Counted from 0, < ``num_steps``.
    num_steps : int
        Steps of this call.
    peak : float
        Largest rate, reached at the end of the warm-up.
    options : LocalTraining
        ``warmup_fraction`` of the steps warm up; the last step runs at ``final_fraction * peak``.
    """
    num_warmup = math.floor(options.warmup_fraction * num_steps)
    if step < num_warmup:
        return peak * (step + 1) / (num_warmup + 1)
    progress = (step - num_warmup) / max(1, num_steps - num_warmup - 1)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (options.final_fraction + (1 - options.final_fraction) * cosine)


def train(
    model: nn.Module,
    records: Mapping[str, Tensor],
    loss_fn: Loss,
    options: LocalTraining,
    *,
    learning_rate: float,
    rng: np.random.Generator,
    execution: Execution,
    augment: Augment | None = None,
    anchor: Mapping[str, Tensor] | None = None,
    correction: Mapping[str, Tensor] | None = None,
    whole_batches: bool = False,
    on_step: Callable[[int, int, float], None] | None = None,
) -> TrainSummary:
    """Train ``model`` in place.

    Parameters
    ----------
    model : nn.Module
        Starts from the global weights; moved to the device and to channels-last.
    records : mapping of str to Tensor
        The training set; every tensor has one row per record.
    loss_fn : callable
        ``loss_fn(model, batch)`` returns the loss of each record, (B,).
    options : LocalTraining
        Epochs, batch size, optimiser, decay, schedule, clipping, ``proximal_mu``, ``augment``.
    learning_rate : float
        Peak rate of this round, > 0.
    rng : numpy.random.Generator
        Source of every draw: the order of records, augmentation, dropout.
    execution : Execution
        Device, precision, threads, compilation.
    augment : callable, optional
        ``augment(batch, generator)`` returns the batch to train on; used if ``options.augment``.
    anchor : mapping of str to Tensor, optional
        Global weights of the proximal term; by default the weights the model comes with.
    correction : mapping of str to Tensor, optional
        Added to the gradient of each parameter in every step, before it is clipped: SCAFFOLD's
        ``c - c_i``. At the common optimum the corrected gradient is near zero, where a hospital's
        own is not, so clipping it does not move the optimum.
    whole_batches : bool
        The loss of a record depends on the others of its batch, so threads must not share one.
    on_step : callable, optional
        Called with (steps done, steps in all, loss) after every step.

    Raises
    ------
    TrainingError
        If there is no record, the tensors disagree on their number, a loss or gradient is not
        finite, or a quarter of a batch does not fit into memory; the model then has the weights it
        came with.
    """
    num_records = _num_records(records)
    draws = rng.integers(2**63 - 1, size=2)
    model.to(device=execution.device, memory_format=torch.channels_last)
    records = {name: tensor.to(execution.device) for name, tensor in records.items()}
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if options.proximal_mu > 0:
        given = before if anchor is None else anchor
        anchor = {name: value.to(execution.device) for name, value in given.items()}
    was_training = model.training
    count = num_shards(model, execution, whole_batches=whole_batches)
    shards = Shards(
        model, count, loss_fn, execution.autocast, execution.compile, whole_batches=whole_batches
    )
    loop = _Loop(model, records, shards, options, learning_rate, execution, anchor, correction)
    num_batches = math.ceil(num_records / options.batch_size)
    orders = [rng.permutation(num_records) for _ in range(options.epochs)]
    # Batches of nearly equal size: a last batch of one record would weigh it like sixteen.
    batches = [rows for order in orders for rows in np.array_split(order, num_batches)]
    devices = [torch.cuda.current_device()] if execution.device == "cuda" else []
    model.train()
    try:
        # Dropout takes no generator and draws from torch's global one. So that one is seeded here
        # from ours, inside a fork that is undone afterwards: same seed, same masks, and whoever
        # calls keeps their own stream.
        with loop.active(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(draws[0]))
            generator = torch.Generator().manual_seed(int(draws[1]))
            use = augment if options.augment else None
            return loop.run(batches, use, generator, on_step)
    except TrainingError:
        model.load_state_dict(before)
        raise
    finally:
        model.train(was_training)


def _num_records(records: Mapping[str, Tensor]) -> int:
    counts = {name: int(tensor.shape[0]) for name, tensor in records.items()}
    if not counts or not min(counts.values()):
        raise TrainingError("There is no training record; add patients or leave this stage out.")
    if len(set(counts.values())) > 1:
        raise TrainingError(
            f"The training tensors disagree on the number of records, {counts}; prepare them again."
        )
    return next(iter(counts.values()))


class _Loop:
    """The parts of one call of `train`, so that a step reads as a step."""

    def __init__(
        self,
        model: nn.Module,
        records: Mapping[str, Tensor],
        shards: Shards,
        options: LocalTraining,
        learning_rate: float,
        execution: Execution,
        anchor: Mapping[str, Tensor] | None,
        correction: Mapping[str, Tensor] | None,
    ) -> None:
        self.model = model
        self.records = records
        self.options = options
        self.peak = learning_rate
        self.anchor = anchor
        self.shards = shards
        # Threads that share a batch must not split their operations as well.
        shared = len(shards.replicas) > 1
        self.execution = replace(execution, threads=1) if shared else execution
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.corrections = [
            (parameter, correction[name].to(execution.device))
            for name, parameter in model.named_parameters()
            if correction is not None
        ]
        self.optimizer = LocalOptimizer(options.optimizer, self.parameters, options.weight_decay)

    @contextmanager
    def active(self) -> Iterator[None]:
        with self.execution.active(), self.shards:
            yield

    def run(
        self,
        batches: list[np.ndarray],
        augment: Augment | None,
        generator: torch.Generator,
        on_step: Callable[[int, int, float], None] | None,
    ) -> TrainSummary:
        summed, seen, loss, rate_sum = 0.0, 0, math.nan, 0.0
        for step, rows in enumerate(batches):
            batch = self._batch(rows)
            if augment is not None:
                batch = augment(batch, generator)
            rate = learning_rate_at(step, len(batches), self.peak, self.options)
            loss = self._step(batch, rate, f"batch {step + 1} of {len(batches)}")
            summed += loss * len(rows)
            rate_sum += rate
            seen += len(rows)
            if on_step is not None:
                on_step(step + 1, len(batches), loss)
        return TrainSummary(summed / seen, len(batches), loss, rate_sum)

    def _batch(self, rows: np.ndarray) -> Batch:
        batch = {}
        for name, tensor in self.records.items():
            part = tensor[torch.from_numpy(rows).to(tensor.device)]
            if part.ndim == 4:
                part = part.contiguous(memory_format=torch.channels_last)
            batch[name] = part
        return batch

    def _step(self, batch: Batch, learning_rate: float, where: str) -> float:
        value = self.shards.backward(batch)
        if not math.isfinite(value):
            raise TrainingError(_not_finite("loss", where, value))
        if self.options.proximal_mu > 0 and self.anchor is not None:
            proximal_term(self.model, self.anchor, self.options.proximal_mu).backward()
        for parameter, shift in self.corrections:
            if parameter.grad is not None:
                parameter.grad += shift
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.options.grad_clip_norm))
        if not math.isfinite(norm):
            raise TrainingError(_not_finite("gradient norm", where, norm))
        self.optimizer.step(learning_rate)
        return value


def _not_finite(what: str, where: str, value: float) -> str:
    return (
        f"The {what} of {where} is {value}, expected a finite number; no weights were kept: check "
        "the images of this hospital for missing values, or lower the learning rate."
    )
