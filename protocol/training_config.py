"""The sections of a study that say how one network is built, trained and averaged."""

from typing import Any, Literal

from pydantic import Field

from protocol.yaml_files import Frozen

__all__ = ["LocalTraining", "Network", "Strategy"]


class Network(Frozen):
    """A network by its name in ``shared_models.networks.NETWORKS`` and its keyword arguments."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class LocalTraining(Frozen):
    """What a hospital does with the global model in one round.

    Attributes
    ----------
    epochs : int
        Passes over the hospital's own training records.
    learning_rate : float
        Peak of the first round; the peak falls over rounds by ``round_decay``.
    final_fraction : float
        Within a round the rate follows a cosine down to this share of the peak. The default 1 keeps
        it: averaging the hospitals settles what a falling rate settles elsewhere.
    proximal_mu : float
        Weight of FedProx's ``mu/2 ||w - w_global||^2``; 0 is FedAvg.
    """

    epochs: int = Field(1, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    final_fraction: float = Field(1.0, ge=0, le=1)
    warmup_fraction: float = Field(0.0, ge=0, lt=1)
    round_decay: Literal["none", "cosine"] = "cosine"
    grad_clip_norm: float = Field(5.0, gt=0)
    proximal_mu: float = Field(0.0, ge=0)
    augment: bool = True


class Strategy(Frozen):
    """An aggregation rule by its name in ``strategies.STRATEGIES`` and its keyword arguments."""

    name: str = "fedavg"
    options: dict[str, float] = Field(default_factory=dict)
    weight_by: Literal["patients", "events"] = "patients"
