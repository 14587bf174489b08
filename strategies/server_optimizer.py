"""The mean update as a gradient for an optimiser at the centre.

Reddi et al. 2021, "Adaptive Federated Optimization" (ICLR), Algorithm 2. With the global model
``x_t`` and the weighted mean ``mean_t`` of the replies, ``D_t = mean_t - x_t`` and, per element::

    m_t = b1 m_{t-1} + (1 - b1) D_t
    v_t = v_{t-1} + D_t^2                                        FedAdagrad
    v_t = v_{t-1} - (1 - b2) D_t^2 sign(v_{t-1} - D_t^2)         FedYogi
    v_t = b2 v_{t-1} + (1 - b2) D_t^2                            FedAdam
    x_{t+1} = x_t + eta m_t / (sqrt(v_t) + tau)

from ``m_{-1} = 0`` and ``v_{-1} = tau^2`` (the paper asks for ``v_{-1} >= tau^2``), without
Adam's bias correction, as in the paper. FedAvgM is Hsu et al. 2019, "Measuring the Effects of
Non-Identical Data Distribution for Federated Visual Classification", Section 4.3::

    m_t = b m_{t-1} + D_t,    x_{t+1} = x_t + eta m_t

Integer arrays (counters) have no gradient and take the mean.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from protocol.arrays import Arrays
from protocol.errors import ConfigError
from strategies.mean import accumulator_dtype
from strategies.turnout import EVERYBODY, Turnout

__all__ = ["SECOND_MOMENT", "FedAvgM", "FedOpt"]

SecondMoment = Callable[[np.ndarray, np.ndarray, float], np.ndarray]

# v_t from v_{t-1}, D_t^2 and b2.
SECOND_MOMENT: dict[str, SecondMoment] = {
    "adagrad": lambda v, d2, b2: v + d2,
    "adam": lambda v, d2, b2: b2 * v + (1 - b2) * d2,
    "yogi": lambda v, d2, b2: v - (1 - b2) * d2 * np.sign(v - d2),
}


def _need(condition: bool, option: str, value: float, expected: str) -> None:
    if not condition:
        raise ConfigError(
            f"Strategy option {option} is {value}, expected {expected}; correct the study file."
        )


def _trained(arrays: Arrays) -> list[str]:
    return [name for name, array in arrays.items() if array.dtype.kind == "f"]


def _filled(arrays: Arrays, prefix: str, value: float) -> Arrays:
    return {
        f"{prefix}/{name}": np.full(
            arrays[name].shape, value, dtype=accumulator_dtype(arrays[name].dtype)
        )
        for name in _trained(arrays)
    }


@dataclass(frozen=True)
class FedAvgM:
    """Server momentum; ``momentum=0`` and ``learning_rate=1`` is FedAvg up to rounding.

    Attributes
    ----------
    learning_rate : float
        ``eta`` > 0.
    momentum : float
        ``b`` in [0, 1).
    """

    learning_rate: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _need(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _need(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")

    def init(self, arrays: Arrays) -> Arrays:
        """Return the state before the first round: ``m/<name>``, zeros."""
        return _filled(arrays, "m", 0.0)

    def step(
        self, arrays: Arrays, mean: Arrays, state: Arrays, turnout: Turnout = EVERYBODY
    ) -> tuple[Arrays, Arrays]:
        """Return the next global model and state."""
        new, after = dict(mean), {}
        for name in _trained(arrays):
            m = self.momentum * state[f"m/{name}"] + (mean[name] - arrays[name])
            new[name] = arrays[name] + self.learning_rate * m
            # numpy turns an array of no dimension into a scalar; the state stays arrays.
            after[f"m/{name}"] = np.asarray(m)
        return new, after


@dataclass(frozen=True)
class FedOpt:
    """FedAdam, FedYogi or FedAdagrad, by the rule of the second moment.

    Attributes
    ----------
    second_moment : {"adam", "yogi", "adagrad"}
        Key of `SECOND_MOMENT`.
    learning_rate : float
        ``eta`` > 0.
    beta_1, beta_2 : float
        Decay of the moments in [0, 1); ``beta_2`` is unused by Adagrad.
    tau : float
        Adaptivity > 0; smaller adapts more.
    initial_v : float
        ``v_{-1}`` >= 0; negative (the default) stands for ``tau^2``.
    """

    second_moment: str
    learning_rate: float = 1e-2
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3
    initial_v: float = -1.0

    def __post_init__(self) -> None:
        _need(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _need(0 <= self.beta_1 < 1, "beta_1", self.beta_1, "in [0, 1)")
        _need(0 <= self.beta_2 < 1, "beta_2", self.beta_2, "in [0, 1)")
        _need(self.tau > 0, "tau", self.tau, "above 0")

    def init(self, arrays: Arrays) -> Arrays:
        """Return the state before the first round: ``m/<name>`` zeros, ``v/<name>`` filled."""
        v = self.initial_v if self.initial_v >= 0 else self.tau**2
        return _filled(arrays, "m", 0.0) | _filled(arrays, "v", v)

    def step(
        self, arrays: Arrays, mean: Arrays, state: Arrays, turnout: Turnout = EVERYBODY
    ) -> tuple[Arrays, Arrays]:
        """Return the next global model and state."""
        rule = SECOND_MOMENT[self.second_moment]
        new, after = dict(mean), {}
        for name in _trained(arrays):
            delta = mean[name] - arrays[name]
            m = self.beta_1 * state[f"m/{name}"] + (1 - self.beta_1) * delta
            v = rule(state[f"v/{name}"], delta * delta, self.beta_2)
            new[name] = arrays[name] + self.learning_rate * m / (np.sqrt(v) + self.tau)
            after[f"m/{name}"], after[f"v/{name}"] = np.asarray(m), np.asarray(v)
        return new, after
