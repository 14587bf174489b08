"""Aggregation rules as in their papers: arrays in, arrays out."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any, Protocol

from protocol.arrays import Arrays
from protocol.errors import ConfigError
from strategies.fedavg import FedAvg
from strategies.mean import RunningMean
from strategies.scaffold import Scaffold
from strategies.server_optimizer import FedAvgM, FedOpt
from strategies.turnout import EVERYBODY, Turnout

__all__ = ["STRATEGIES", "RunningMean", "Strategy", "build"]


class Strategy(Protocol):
    """What the rounds need of an aggregation rule; its state is a dict of arrays.

    What the state holds as `strategies.scaffold.control_of` travels to the hospitals.
    """

    def init(self, arrays: Arrays) -> Arrays:
        """Return the state before the first round."""

    def step(
        self, arrays: Arrays, mean: Arrays, state: Arrays, turnout: Turnout = EVERYBODY
    ) -> tuple[Arrays, Arrays]:
        """Return the next global model and state."""


STRATEGIES: dict[str, Callable[..., Any]] = {
    "fedadagrad": partial(FedOpt, "adagrad"),
    "fedadam": partial(FedOpt, "adam"),
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedprox": FedAvg,
    "fedyogi": partial(FedOpt, "yogi"),
    "scaffold": Scaffold,
}


def build(name: str, options: Mapping[str, float]) -> Strategy:
    """Return an aggregation rule by its name in `STRATEGIES`.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, or an option is out of range.
    """
    if name not in STRATEGIES:
        raise ConfigError(
            f"There is no strategy '{name}'; write one of {', '.join(sorted(STRATEGIES))}."
        )
    known = sorted(signature(STRATEGIES[name]).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"Strategy {name} has no option '{unknown[0]}'; "
            f"its options are {', '.join(known) or 'none'}."
        )
    strategy: Strategy = STRATEGIES[name](**options)
    return strategy
