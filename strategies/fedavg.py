"""Federated averaging: the new global model is the mean of the hospitals' models.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data",
Algorithm 1: ``x_{t+1} = sum_k (n_k / n) x_{t+1}^k``. FedProx (Li et al. 2020, "Federated
Optimization in Heterogeneous Networks", Algorithm 2) is the same on this side; its term
``mu/2 ||w - w_t||^2`` belongs to the hospital's loss.
"""

from dataclasses import dataclass

from protocol.arrays import Arrays
from strategies.turnout import EVERYBODY, Turnout

__all__ = ["FedAvg"]


@dataclass(frozen=True)
class FedAvg:
    """``x_{t+1} = mean``; no state."""

    def init(self, arrays: Arrays) -> Arrays:
        """Return the state before the first round: nothing."""
        return {}

    def step(
        self, arrays: Arrays, mean: Arrays, state: Arrays, turnout: Turnout = EVERYBODY
    ) -> tuple[Arrays, Arrays]:
        """Return the next global model and state; absent hospitals leave no trace.

        Parameters
        ----------
        arrays : Arrays
            The global model of this round.
        mean : Arrays
            Weighted mean of the replies.
        """
        return mean, state
