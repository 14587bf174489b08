"""Sums of per-patient gradients, each clipped: what one patient can change is at most C.

The guarantee of DP-SGD (Abadi et al., ACM CCS 2016, algorithm 1) rests on one inequality: adding or
removing a patient changes the sum below by a vector of norm C at most. For that a patient's
gradient must not depend on who else was drawn; the norm is taken over all trainable parameters
together, in float64; and a patient whose gradient is not finite adds zero, because an error would
tell that they are there.

There are three ways to the same gradients, to rounding: one patient after the other, which is true
by construction; ``vmap`` over the differentiated network, in which each patient is alone as well;
and `privacy.layers`, which is as fast as a plain step and is used only after it gave what the first
way gives. That comparison finds wrong rules and layers that mix rows; of a loss it sees what the
first patients show, so a loss has to pass `privacy.refusals.require_separable` as well.

Letters: P patients, D numbers of all trainable parameters together.
"""

import copy
import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from privacy.layers import LayerRule, Layers

__all__ = ["ClippedSum", "PatientGradients", "PatientLoss", "clipped_sum"]

PatientLoss = Callable[[nn.Module, dict[str, Tensor]], Tensor]
"""``(model, records of P patients)`` returns the loss of each patient, (P,)."""

Rules = Mapping[type[nn.Module], LayerRule]

# Beyond, C / norm has too few digits in float32 for the product to keep to the bound.
LARGEST_NORM = 1e30
# How many patients the fast way is compared on, and the largest relative difference: rounding stays
# two orders of magnitude below, and a rule that is wrong two above.
COMPARED = 8
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ClippedSum:
    """The clipped sum of some patients' gradients, and what must not leave the hospital.

    Attributes
    ----------
    gradients : dict of str to Tensor
        ``sum_i g_i min(1, C / ||g_i||)`` by the names of the trainable parameters; zeros for no
        patient. Without noise this must not leave the hospital either.
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
    rules: Rules | None = None,
) -> ClippedSum:
    """Return the sum of the patients' gradients, each clipped to the norm C.

    Parameters
    ----------
    model : nn.Module
        Neither its weights nor their ``grad`` are changed.
    patients : mapping of str to Tensor
        (P, ...) each; one row is everything that one patient gives to this step.
    loss_fn : callable
        ``loss_fn(model, records)`` returns the loss of each patient, (P,).
    clip_norm : float
        C > 0, the largest Euclidean norm of what one patient adds.
    chunk_size : int
        Patients whose gradients are held at once, >= 1.
    rules : mapping, optional
        As `privacy.layers.RULES`, for the fast way; by default ``vmap``, and for a chunk of one
        plain differentiation.
    """
    with PatientGradients(model, loss_fn, chunk_size=chunk_size, rules=rules) as gradients:
        return gradients.clipped_sum(patients, clip_norm)


class PatientGradients:
    """`clipped_sum` for many steps of one model, by threads that each take a share of the patients.

    Parameters
    ----------
    model, loss_fn, chunk_size, rules
        As in `clipped_sum`. The model's weights may change between steps, but only in place.
    threads : int
        Threads, >= 1. Sums are split over them, so the last bit of a result depends on it.

    Attributes
    ----------
    fast : bool
        Whether the rules passed the comparison and are used.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: PatientLoss,
        *,
        chunk_size: int,
        threads: int = 1,
        rules: Rules | None = None,
    ) -> None:
        if chunk_size < 1 or threads < 1:
            raise ValueError(f"chunk_size {chunk_size} and threads {threads} must be 1 at least")
        self.chunk_size, self.rules, self.compared = chunk_size, rules, rules is None
        self.fast = False
        self.patients = _Patients(model, loss_fn)
        self.workers = [_slow(self.patients, chunk_size) for _ in range(threads)]
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
        # Two patients at least: alone nobody depends on anybody.
        if not self.compared and num_patients > 1:
            self._compare({name: tensor[:COMPARED] for name, tensor in patients.items()})
        count = min(len(self.workers), num_patients)
        shares = [
            {name: tensor.tensor_split(count)[index] for name, tensor in patients.items()}
            for index in range(count)
        ]
        tasks = list(zip(self.workers, shares, itertools.repeat(clip_norm), strict=False))
        if self.pool is None:
            parts = [self._share(*task) for task in tasks]
        else:
            jobs = [self.pool.submit(self._share, *task) for task in tasks]
            parts = [job.result() for job in jobs]
        flat, norms, losses = _added([_nothing(self.patients), *parts])
        return ClippedSum(_named(self.patients, flat), norms, losses)

    def _compare(self, patients: dict[str, Tensor]) -> None:
        """Take the fast way from now on if it gives what one patient after the other gives."""
        self.compared = True
        rules = self.rules or {}
        # With other weights: where some are zero, as they are at first, gradients are as well.
        moved = _replica(self.patients, share=False).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in moved.parameters():
                noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
                parameter.add_(noise, alpha=0.1)
        expected, _ = _one_by_one(moved)(patients)
        try:
            found, _ = _by_layers(moved, rules)(patients)
        # Whatever the fast way stumbles over, the slow one is there.
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
            return
        error = torch.linalg.vector_norm(found - expected, dim=1)
        if bool((error <= TOLERANCE * torch.linalg.vector_norm(expected, dim=1)).all()):
            self.workers = [_by_layers(_replica(self.patients), rules) for _ in self.workers]
            self.fast = True

    def _share(self, worker: "_Worker", patients: dict[str, Tensor], clip_norm: float) -> "_Part":
        parts = []
        for first in range(0, len(next(iter(patients.values()))), self.chunk_size):
            rows = slice(first, first + self.chunk_size)
            grads, losses = worker({name: tensor[rows] for name, tensor in patients.items()})
            flat, norms = _clipped(grads, clip_norm)
            parts.append((flat, norms, losses.float()))
        return _added(parts)


_Worker = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
"""``records of P patients -> (P, D), (P,)``: their gradients and losses."""
_Part = tuple[Tensor, Tensor, Tensor]
"""A clipped sum (D,), norms (P,) and losses (P,)."""


class _Patients(nn.Module):
    """The losses of patients, as a module whose parameters can be exchanged."""

    def __init__(self, model: nn.Module, loss_fn: PatientLoss) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn

    def forward(self, patients: dict[str, Tensor]) -> Tensor:
        return self.loss_fn(self.model, patients)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def _clipped(grads: Tensor, clip_norm: float) -> tuple[Tensor, Tensor]:
    """Return ``sum_i g_i min(1, C / ||g_i||)``, (D,), and the norms, of (P, D)."""
    norms = torch.linalg.vector_norm(grads, dim=1, dtype=torch.float64)
    # Written so that a NaN is not below the bound either.
    usable = norms < LARGEST_NORM
    if not bool(usable.all()):
        grads = grads[usable]
    factors = (clip_norm / norms[usable]).clamp(max=1.0)
    return factors.to(grads.dtype) @ grads, norms


def _one_by_one(module: _Patients) -> _Worker:
    parameters = list(module.trainable().values())

    def work(patients: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rows, losses = [], []
        for index in range(len(next(iter(patients.values())))):
            one = {name: tensor[index : index + 1] for name, tensor in patients.items()}
            loss = module(one)
            found = torch.autograd.grad(
                loss.sum(), parameters, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([grad.reshape(-1) for grad in found]))
            losses.append(loss.detach())
        return torch.stack(rows), torch.cat(losses)

    return work


def _by_vmap(module: _Patients) -> _Worker:
    def loss(parameters: dict[str, Tensor], patient: dict[str, Tensor]) -> Tensor:
        one = {name: row[None] for name, row in patient.items()}
        return functional_call(module, parameters, (one,))[0]

    # 'different': each patient has dropout of their own, as they would alone.
    many = vmap(grad_and_value(loss), in_dims=(None, 0), randomness="different")

    def work(patients: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        fixed = {name: p.detach() for name, p in module.trainable().items()}
        grads, losses = many(fixed, patients)
        return torch.cat([grad.flatten(1) for grad in grads.values()], dim=1), losses

    return work


def _by_layers(module: _Patients, rules: Rules) -> _Worker:
    layers = Layers(module, rules)

    def work(patients: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        grads, losses = layers.gradients(patients, len(next(iter(patients.values()))))
        return torch.cat([grad.flatten(1) for grad in grads.values()], dim=1), losses

    return work


def _slow(module: _Patients, chunk_size: int) -> _Worker:
    replica = _replica(module)
    return _one_by_one(replica) if chunk_size == 1 else _by_vmap(replica)


def _replica(module: _Patients, *, share: bool = True) -> _Patients:
    """Return a copy, of the same weights: to differentiate, threads exchange those of a module."""
    replica = copy.deepcopy(module)
    for own, shared in zip(replica.parameters(), module.parameters(), strict=True):
        if share:
            own.data = shared.data
    return replica


def _nothing(module: _Patients) -> _Part:
    like = next(iter(module.parameters()))
    size = sum(p.numel() for p in module.trainable().values())
    none = like.new_zeros(0)
    return like.new_zeros(size), none.double(), none.float()


def _added(parts: list[_Part]) -> _Part:
    """Add parts in their order."""
    total = parts[0][0].clone()
    for flat, _, _ in parts[1:]:
        total += flat
    return total, torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])


def _named(module: _Patients, flat: Tensor) -> dict[str, Tensor]:
    parameters = module.trainable()
    parts = flat.split([p.numel() for p in parameters.values()])
    return {
        name.removeprefix("model."): part.reshape(p.shape)
        for (name, p), part in zip(parameters.items(), parts, strict=True)
    }
