"""Sums of per-patient gradients, each clipped: what one patient can change is at most C.

The guarantee of DP-SGD (Abadi et al., ACM CCS 2016, algorithm 1) rests on one inequality: adding
or removing a patient changes the sum below by a vector of norm C at most. It holds here by
construction. Every patient is put through the network alone, so no gradient depends on who else
was drawn, whatever the loss or the layers do; the norm is taken over all trainable parameters
together, in float64; and a patient whose gradient is not finite adds zero.

Letters: P patients.
"""

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

__all__ = ["ClippedSum", "PatientGradients", "PatientLoss", "clipped_sum"]

PatientLoss = Callable[[nn.Module, dict[str, Tensor]], Tensor]
"""``(model, records of P patients) -> (P,)``, the loss of each patient."""

# Beyond, C / norm has too few digits in float32 for the product to keep to the bound.
LARGEST_NORM = 1e30


@dataclass(frozen=True)
class ClippedSum:
    """The clipped sum of some patients' gradients, and what must not leave the hospital.

    Attributes
    ----------
    gradients : dict of str to Tensor
        ``sum_i g_i min(1, C / ||g_i||)`` by the names of the trainable parameters; the zero vector
        for no patient.
    norms : Tensor
        (P,) float64, ``||g_i||`` before clipping; infinite or NaN where a gradient is.
    loss : Tensor
        (P,) float32, the loss of each patient.
    """

    gradients: dict[str, Tensor]
    norms: Tensor
    loss: Tensor


def clipped_sum(
    model: nn.Module,
    patients: Mapping[str, Tensor],
    loss_fn: PatientLoss,
    clip_norm: float,
    *,
    chunk_size: int,
) -> ClippedSum:
    """Return the sum of the patients' gradients, each clipped to the norm C.

    Parameters
    ----------
    model : nn.Module
        Neither its weights nor their ``grad`` are changed.
    patients : mapping of str to Tensor
        (P, ...) each; one row is everything that one patient gives to this step.
    loss_fn : callable
        ``loss_fn(model, records)`` returns the loss of each patient, (P,); it is called with the
        records of one patient at a time.
    clip_norm : float
        C > 0, the largest Euclidean norm of what one patient adds.
    chunk_size : int
        Patients whose gradients are computed at once, >= 1. With 1 by plain differentiation, with
        more by ``vmap``; the result is the same to rounding.
    """
    with PatientGradients(model, loss_fn, chunk_size=chunk_size) as gradients:
        return gradients.clipped_sum(patients, clip_norm)


class PatientGradients:
    """`clipped_sum` for many steps of one model, by threads that each take a share of the patients.

    Parameters
    ----------
    model, loss_fn, chunk_size
        As in `clipped_sum`. The model's weights may change between steps, but only in place.
    threads : int
        Threads, >= 1. Sums are split over them, so the last bit of a result depends on it.
    """

    def __init__(
        self, model: nn.Module, loss_fn: PatientLoss, *, chunk_size: int, threads: int = 1
    ) -> None:
        if chunk_size < 1 or threads < 1:
            raise ValueError(f"chunk_size {chunk_size} and threads {threads} must be 1 at least")
        self.chunk_size = chunk_size
        self.workers = [_Worker(model, loss_fn)]
        self.workers += [_Worker(_replica(model), loss_fn) for _ in range(threads - 1)]
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    def clipped_sum(self, patients: Mapping[str, Tensor], clip_norm: float) -> ClippedSum:
        """Return what the function of this name returns."""
        if not 0 < clip_norm < torch.inf:
            raise ValueError(f"clip_norm {clip_norm} must be above 0 and finite")
        num_patients = len(next(iter(patients.values())))
        count = min(len(self.workers), num_patients)
        if count == 0:
            return self.workers[0].nothing()
        shares = [
            {name: tensor.tensor_split(count)[index] for name, tensor in patients.items()}
            for index in range(count)
        ]
        tasks = list(zip(self.workers, shares, strict=False))
        if self.pool is None:
            parts = [worker.clipped_sum(s, clip_norm, self.chunk_size) for worker, s in tasks]
        else:
            jobs = [
                self.pool.submit(worker.clipped_sum, share, clip_norm, self.chunk_size)
                for worker, share in tasks
            ]
            parts = [job.result() for job in jobs]
        return _joined(parts)


def _replica(model: nn.Module) -> nn.Module:
    """Return a copy that shares the weights: differentiation swaps a module's parameters."""
    replica = copy.deepcopy(model)
    for own, shared in zip(replica.parameters(), model.parameters(), strict=True):
        own.data = shared.data
    return replica


class _Worker:
    """One thread's network and its gradients."""

    def __init__(self, model: nn.Module, loss_fn: PatientLoss) -> None:
        self.module = _OnePatient(model, loss_fn)
        self.names = {f"model.{name}": name for name, _ in model.named_parameters()}
        # 'different': every patient has dropout of their own, as they would alone.
        self.many = vmap(grad_and_value(self._loss), in_dims=(None, 0), randomness="different")

    def _loss(self, parameters: dict[str, Tensor], patient: dict[str, Tensor]) -> Tensor:
        return functional_call(self.module, parameters, (patient,))

    def _trainable(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def nothing(self) -> ClippedSum:
        zeros = {self.names[n]: torch.zeros_like(p) for n, p in self._trainable().items()}
        return ClippedSum(zeros, torch.zeros(0, dtype=torch.float64), torch.zeros(0))

    def clipped_sum(
        self, patients: Mapping[str, Tensor], clip_norm: float, chunk_size: int
    ) -> ClippedSum:
        num_patients = len(next(iter(patients.values())))
        parts = []
        for first in range(0, num_patients, chunk_size):
            rows = slice(first, first + chunk_size)
            chunk = {name: tensor[rows] for name, tensor in patients.items()}
            parts.append(self._chunk(chunk, clip_norm, alone=chunk_size == 1))
        return _joined(parts)

    def _chunk(self, chunk: dict[str, Tensor], clip_norm: float, *, alone: bool) -> ClippedSum:
        parameters = self._trainable()
        if alone:
            loss = self.module({name: tensor[0] for name, tensor in chunk.items()})
            found = torch.autograd.grad(
                loss, list(parameters.values()), allow_unused=True, materialize_grads=True
            )
            grads = {name: g[None] for name, g in zip(parameters, found, strict=True)}
            loss = loss[None]
        else:
            fixed = {name: parameter.detach() for name, parameter in parameters.items()}
            grads, loss = self.many(fixed, chunk)
        squares = [
            torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float64).square()
            for g in grads.values()
        ]
        norms = torch.stack(squares).sum(dim=0).sqrt()
        # Written so that a NaN is not below the bound either.
        usable = norms < LARGEST_NORM
        factors = torch.where(usable, (clip_norm / norms).clamp(max=1.0), 0.0).float()
        if not bool(usable.all()):
            grads = {name: g[usable] for name, g in grads.items()}
            factors = factors[usable]
        summed = {self.names[name]: torch.tensordot(factors, g, 1) for name, g in grads.items()}
        return ClippedSum(summed, norms, loss.detach().float())


class _OnePatient(nn.Module):
    """The loss of one patient, as a module whose parameters can be swapped."""

    def __init__(self, model: nn.Module, loss_fn: PatientLoss) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn

    def forward(self, patient: dict[str, Tensor]) -> Tensor:
        return self.loss_fn(self.model, {name: row[None] for name, row in patient.items()})[0]


def _joined(parts: list[ClippedSum]) -> ClippedSum:
    """Add parts in their order, into the first."""
    first, *others = parts
    for other in others:
        for name, total in first.gradients.items():
            total += other.gradients[name]
    return ClippedSum(
        first.gradients,
        torch.cat([part.norms for part in parts]),
        torch.cat([part.loss for part in parts]),
    )
