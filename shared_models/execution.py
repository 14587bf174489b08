"""Where and how a network runs at one site: device, precision, threads, compilation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Self

import torch

from protocol.errors import ConfigError

__all__ = ["Execution"]


@dataclass(frozen=True)
class Execution:
    """Settings of one machine, resolved: nothing is ``auto`` any more.

    Attributes
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``.
    precision : str
        ``"fp32"``, or ``"bf16"`` for automatic mixed precision.
    threads : int
        CPU threads. Sums are split over threads, so the last bit of a result depends on it.
    compile : bool
        Use ``torch.compile``.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 2
    compile: bool = False

    @classmethod
    def resolve(
        cls,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 2,
        compile: bool | str = "auto",
    ) -> Self:
        """Settle what a site left open.

        Parameters
        ----------
        device : str
            ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        precision : str
            ``"auto"``, ``"fp32"`` or ``"bf16"``. On a CPU ``auto`` is bf16 only where the processor
            multiplies bf16 matrices itself (AMX), where a step of the U-Net takes a quarter less:
            without that, oneDNN converts back and forth and a step gets slower, not faster.
        threads : int
            CPU threads, >= 1.
        compile : bool or str
            ``"auto"`` is off: a client process lives for one round, compilation costs more than a
            round of the demo, and ``benchmarks/training_step.py`` prints what it would give.

        Raises
        ------
        ConfigError
            If a value is not among these, or CUDA is asked for where there is none.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"Device '{device}' is unknown; write auto, cpu or cuda.")
        if precision not in ("auto", "fp32", "bf16"):
            raise ConfigError(f"Precision '{precision}' is unknown; write auto, fp32 or bf16.")
        if compile not in (True, False, "auto"):
            raise ConfigError(f"Compile '{compile}' is unknown; write auto, true or false.")
        if threads < 1:
            raise ConfigError(f"{threads} threads cannot train; write 1 or more.")
        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise ConfigError("Device cuda was asked for but none is visible; write auto or cpu.")
        chosen: Literal["cpu", "cuda"] = "cuda" if has_cuda and device != "cpu" else "cpu"
        if precision == "auto":
            precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
        return cls(
            device=chosen,
            precision="bf16" if precision == "bf16" else "fp32",
            threads=threads,
            compile=compile is True,
        )

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run a block with these threads and with deterministic kernels, then restore."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
                yield
        finally:
            torch.set_num_threads(before)

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass at this precision; the backward pass follows it."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


def _multiplies_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
