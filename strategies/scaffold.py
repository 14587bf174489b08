"""SCAFFOLD: the drift of each hospital is measured and taken out of its steps.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (ICML),
Algorithm 1, option II. With the weighted mean ``mean_t`` of the replies' models, the changes
``D_i`` of their control variates (`protocol.control`) and weights ``w_i``::

    x_{t+1} = x_t + eta (mean_t - x_t)
    c_{t+1} = (W_t c_t + sum_{i in S} w_i D_i) / W_{t+1}

where ``W_t`` is the weight of all hospitals that were heard by then. So ``c`` is the weighted mean
of the ``c_i`` as long as a hospital's weight stays what it is, whoever misses a round. In the paper
every hospital weighs the same and counts from the start, heard or not: ``c + |S|/N mean(D_i)``.

Where a hospital takes many steps a round, FedAvg's model is no stationary point of the hospitals'
mean loss; this one is, if the hospitals' steps are plain gradient steps.
"""

from dataclasses import dataclass

import numpy as np

from protocol.arrays import Arrays
from protocol.control import no_control
from protocol.errors import ConfigError
from strategies.turnout import EVERYBODY, Turnout

__all__ = ["Scaffold", "as_state", "control_of"]

PREFIX = "control/"


def as_state(control: Arrays) -> Arrays:
    """Return a control variate, or a change of one, under the names it has in the state."""
    return {f"{PREFIX}{name}": array for name, array in control.items()}


def control_of(state: Arrays) -> Arrays:
    """Return the control variate that goes to the hospitals; empty for every other strategy."""
    return {
        name.removeprefix(PREFIX): array for name, array in state.items() if name.startswith(PREFIX)
    }


@dataclass(frozen=True)
class Scaffold:
    """Federated averaging of corrected steps; with one hospital it is FedAvg to the bit.

    Attributes
    ----------
    learning_rate : float
        The centre's ``eta`` > 0; with 1 the new model is the mean itself.
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ConfigError(
                f"Strategy option learning_rate is {self.learning_rate}, expected above 0; correct "
                "the study file."
            )

    def init(self, arrays: Arrays) -> Arrays:
        """Return the state before the first round: ``control/<name>``, zeros."""
        return as_state(no_control(arrays))

    def step(
        self, arrays: Arrays, mean: Arrays, state: Arrays, turnout: Turnout = EVERYBODY
    ) -> tuple[Arrays, Arrays]:
        """Return the next global model and state.

        Parameters
        ----------
        arrays : Arrays
            The global model of this round.
        mean : Arrays
            Weighted mean of the replies' models, and under ``control/<name>`` of the changes of
            their control variates.
        turnout : Turnout
            Which part of the hospitals these replies are.
        """
        new = {name: mean[name] for name in arrays}
        if self.learning_rate != 1:
            for name in control_of(state):
                new[name] = arrays[name] + self.learning_rate * (mean[name] - arrays[name])
        after = {
            key: np.asarray(turnout.kept * c + turnout.share * mean[key])
            for key, c in state.items()
        }
        return new, after
