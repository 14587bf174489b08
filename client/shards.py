"""The gradient of a batch by threads that each take a share of its records.

Letting every operation split itself over the cores makes them wait for each other some hundred
times a step; here they meet once. The result depends on the number of shares (sums are added in
another order) and on nothing else.
"""

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from protocol.errors import TrainingError
from shared_models.execution import Execution

__all__ = ["Loss", "Shards", "num_shards"]

# A batch is halved twice and no more: a machine that is short of so much is the wrong machine.
MAX_PARTS = 4
# What torch's allocator of ordinary memory says; it has no error of its own.
NO_MEMORY = "can't allocate memory"
Network = Callable[..., Tensor]
Loss = Callable[[Network, Mapping[str, Tensor]], Tensor]


def num_shards(model: nn.Module, execution: Execution, *, whole_batches: bool = False) -> int:
    """Return into how many threads' shares a batch is cut.

    One on a GPU, for compiled networks, and for networks with dropout: threads would race for the
    random numbers of the one generator that dropout draws from. One also with ``whole_batches``,
    for a loss that compares the records of a batch with each other.
    """
    drops = any(isinstance(m, _DropoutNd) and m.p > 0 for m in model.modules())
    one = execution.device != "cpu" or execution.compile or drops or whole_batches
    return 1 if one else execution.threads


class Shards(AbstractContextManager["Shards"]):
    """A network and its replicas, which share the weights and have each their own gradient.

    Parameters
    ----------
    model : nn.Module
        The network; its parameters' ``grad`` receive the sum.
    count : int
        Threads, >= 1; with one, the calling thread does the work.
    loss_fn : callable
        ``loss_fn(network, batch)`` calls the network and returns the loss of each record, (B,).
    autocast : callable
        Returns the context in which the network runs, and nothing else: in it, matrix products of
        a loss would be rounded too. It holds for one thread, so each enters its own.
    compile : bool
        Run the network through ``torch.compile``.
    whole_batches : bool
        The loss compares the records of a batch, so a batch that does not fit cannot be halved.
    """

    def __init__(
        self,
        model: nn.Module,
        count: int,
        loss_fn: Loss,
        autocast: Callable[[], AbstractContextManager[object]],
        compile: bool = False,
        whole_batches: bool = False,
    ) -> None:
        self.max_parts = 1 if whole_batches else MAX_PARTS
        self.num_parts = 1
        self.loss_fn = loss_fn
        self.autocast = autocast
        replicas = [copy.deepcopy(model) for _ in range(count - 1)]
        for replica in replicas:
            for own, shared in zip(replica.parameters(), model.parameters(), strict=True):
                own.data = shared.data
        self.replicas = [torch.compile(model) if compile else model, *replicas]
        self.parameters = [list(replica.parameters()) for replica in (model, *replicas)]
        self.pool = ThreadPoolExecutor(count) if count > 1 else None

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

    def backward(self, batch: Mapping[str, Tensor]) -> float:
        """Set the parameters' gradients to that of the mean loss; return the mean loss.

        A batch that does not fit into memory is worked through in halves, or quarters, whose
        gradients add up to the same: the step is taken over the same records.

        Raises
        ------
        TrainingError
            If not even a quarter fits, or the loss needs its batch whole.
        """
        num_records = len(next(iter(batch.values())))
        while True:
            value = self._in_parts(batch, num_records)
            if value is not None:
                return value
            # Here, where the error is gone, and with it what its frames held.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if 2 * self.num_parts > min(self.max_parts, num_records):
                raise TrainingError(
                    f"A batch of {num_records} records does not fit into this machine's memory, "
                    f"not even in {self.num_parts} part(s); lower training.batch_size or the size "
                    "of the images, or give the hospital's machine more."
                )
            self.num_parts *= 2

    def _in_parts(self, batch: Mapping[str, Tensor], num_records: int) -> float | None:
        """Return the mean loss; None where memory ran out."""
        for parameters in self.parameters:
            for parameter in parameters:
                parameter.grad = None
        value = 0.0
        try:
            for index in range(min(self.num_parts, num_records)):
                value += self._part(_piece(batch, self.num_parts, index), num_records)
        except (MemoryError, torch.cuda.OutOfMemoryError):
            return None
        except RuntimeError as error:
            if NO_MEMORY not in str(error):
                raise
            return None
        return value

    def _part(self, batch: Mapping[str, Tensor], num_records: int) -> float:
        """Add the gradient of a part of a batch; return its part of the mean loss."""
        count = min(len(self.replicas), len(next(iter(batch.values()))))
        shares = [_piece(batch, count, index) for index in range(count)]
        if self.pool is None:
            return self._share(0, shares[0], num_records)
        jobs = [self.pool.submit(self._share, k, s, num_records) for k, s in enumerate(shares)]
        # All of them, also where one fails: none may still add to a gradient later.
        wait(jobs)
        losses = [job.result() for job in jobs]
        for parameters in self.parameters[1:count]:
            for total, part in zip(self.parameters[0], parameters, strict=True):
                if total.grad is not None and part.grad is not None:
                    total.grad += part.grad
                part.grad = None
        return sum(losses)

    def _share(self, index: int, batch: dict[str, Tensor], num_records: int) -> float:
        def network(*inputs: Tensor) -> Tensor:
            with self.autocast():
                return self.replicas[index](*inputs)

        loss = self.loss_fn(network, batch).sum() / num_records
        loss.backward()
        return float(loss.detach())


def _piece(batch: Mapping[str, Tensor], count: int, index: int) -> dict[str, Tensor]:
    return {name: tensor.tensor_split(count)[index] for name, tensor in batch.items()}
