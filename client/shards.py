"""The gradient of a batch by threads that each take a share of its records.

Letting every operation split itself over the cores makes them wait for each other some hundred
times a step; here they meet once. The result depends on the number of shares (sums are added in
another order) and on nothing else.
"""

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from shared_models.execution import Execution

__all__ = ["Shards", "num_shards"]

Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


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
        ``loss_fn(model, batch)`` returns the loss of each record, (B,).
    autocast : callable
        Returns the context of the forward pass; it holds for one thread, so each enters its own.
    compile : bool
        Run the network through ``torch.compile``.
    """

    def __init__(
        self,
        model: nn.Module,
        count: int,
        loss_fn: Loss,
        autocast: Callable[[], AbstractContextManager[object]],
        compile: bool = False,
    ) -> None:
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
        """Set the parameters' gradients to that of the mean loss; return the mean loss."""
        num_records = len(next(iter(batch.values())))
        count = min(len(self.replicas), num_records)
        shares = [
            {name: tensor.tensor_split(count)[index] for name, tensor in batch.items()}
            for index in range(count)
        ]
        if self.pool is None:
            losses = [self._share(0, shares[0], num_records)]
        else:
            jobs = [self.pool.submit(self._share, k, s, num_records) for k, s in enumerate(shares)]
            losses = [job.result() for job in jobs]
        for parameters in self.parameters[1:count]:
            for total, part in zip(self.parameters[0], parameters, strict=True):
                if total.grad is not None and part.grad is not None:
                    total.grad += part.grad
        return sum(losses)

    def _share(self, index: int, batch: dict[str, Tensor], num_records: int) -> float:
        for parameter in self.parameters[index]:
            parameter.grad = None
        with self.autocast():
            loss = self.loss_fn(self.replicas[index], batch).sum() / num_records
        loss.backward()
        return float(loss.detach())
