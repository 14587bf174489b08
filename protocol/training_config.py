"""The sections of a study that say how one network is built, trained and averaged."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from protocol.yaml_files import Frozen

__all__ = ["LocalTraining", "Network", "Strategy", "check_together"]


class Network(Frozen):
    """A network by its name in ``shared_models.networks.NETWORKS`` and its keyword arguments.

    Attributes
    ----------
    start : str or None
        Fingerprint of weights that training begins from, which were trained elsewhere: the centre
        has them, and every hospital can tell that it got these. None begins from random weights.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    start: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class LocalTraining(Frozen):
    """What a hospital does with the global model in one round.

    Attributes
    ----------
    epochs : int
        Passes over the hospital's own training records.
    optimizer : {"adamw", "sgd"}
        ``sgd`` is plain gradient descent on batches, without momentum.
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
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    final_fraction: float = Field(1.0, ge=0, le=1)
    warmup_fraction: float = Field(0.0, ge=0, lt=1)
    round_decay: Literal["none", "cosine"] = "cosine"
    grad_clip_norm: float = Field(5.0, gt=0)
    proximal_mu: float = Field(0.0, ge=0)
    augment: bool = True


class Strategy(Frozen):
    """An aggregation rule by its name in ``strategies.STRATEGIES`` and its keyword arguments.

    Attributes
    ----------
    ask : {"all", "in turn"}
        Whom a round asks. ``in turn`` is one hospital a round, which hands its model on to the next
        through the centre (cyclic weight transfer, Chang et al. 2018, JAMIA 25:945); every
        hospital has its turn once before any has it again, in an order drawn anew each time.
    """

    name: str = "fedavg"
    options: dict[str, float] = Field(default_factory=dict)
    weight_by: Literal["patients", "events"] = "patients"
    ask: Literal["all", "in turn"] = "all"

    @model_validator(mode="after")
    def _in_turn_is_unweighted(self) -> Self:
        if self.ask == "in turn" and self.weight_by == "events":
            raise ValueError(
                "one hospital in turn is averaged with none, and one without events would weigh "
                "nothing; set weight_by to patients"
            )
        return self


def check_together(training: LocalTraining, strategy: Strategy) -> None:
    """Refuse an optimiser that the aggregation rule is not made for.

    Raises
    ------
    ValueError
        If ``scaffold`` is to correct the steps of ``adamw``.
    """
    if strategy.name == "scaffold" and training.optimizer != "sgd":
        raise ValueError(
            "scaffold adds c - c_i to gradients, and adamw divides each coordinate by its own "
            "history, so that the correction no longer cancels a hospital's drift; set "
            "training.optimizer to sgd"
        )
