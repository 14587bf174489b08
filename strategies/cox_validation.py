"""Choosing the penalty of a Cox regression by federated cross-validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.errors import ConfigError
from strategies.cox import Ask, fit
from strategies.cox_penalty import Penalty

__all__ = ["AskFold", "PenaltyChoice", "cross_validate"]

FloatArray = npt.NDArray[np.float64]
# The patients outside fold f; None asks for all patients.
AskFold = Callable[[int | None], Ask]


@dataclass(frozen=True)
class PenaltyChoice:
    """Cross-validated partial log-likelihoods.

    Attributes
    ----------
    penalties : tuple of Penalty, length L
    score : float array (L, F)
        ``l(b_-f) - l_-f(b_-f)`` by fold; higher is better.
    """

    penalties: tuple[Penalty, ...]
    score: FloatArray

    @property
    def total(self) -> FloatArray:
        """Sum over folds (L,): Verweij & van Houwelingen's criterion; higher is better."""
        return np.asarray(self.score.sum(axis=1))

    @property
    def best(self) -> Penalty:
        """The penalty with the highest total; of equals, the one that stands first."""
        return self.penalties[int(np.argmax(self.total))]


def cross_validate(
    ask_fold: AskFold,
    num_covariates: int,
    penalties: Sequence[Penalty],
    num_folds: int,
    *,
    max_rounds: int = 30,
) -> PenaltyChoice:
    """Score each penalty by Verweij & van Houwelingen 1993 (Stat Med 12:2305), eq. 3, with folds.

    ``cvl = sum_f l(b_-f) - l_-f(b_-f)``, with ``b_-f`` fitted outside fold f: a left-out patient
    is judged inside everybody's risk sets, since within a fold risk sets may be empty.

    Parameters
    ----------
    ask_fold : callable
        ``fold -> ask``; hospitals draw the folds and keep them (`client.cox.assign_folds`).
    penalties : sequence of Penalty, length L
        Best from strong to weak: each fit starts from the one before.
    num_folds : int
        At least 2.

    Raises
    ------
    ConfigError
        If there are no penalties or fewer than 2 folds.
    TrainingError
        If a fit fails (see `strategies.cox.fit`).
    """
    if num_folds < 2 or not penalties:
        raise ConfigError(
            f"Cross-validation of {len(penalties)} penalties in {num_folds} folds was asked for; "
            "give at least one penalty and two folds."
        )
    everyone = ask_fold(None)
    score = np.zeros((len(penalties), num_folds))
    for fold in range(num_folds):
        ask, beta = ask_fold(fold), np.zeros(num_covariates)
        for index, penalty in enumerate(penalties):
            outside = fit(ask, num_covariates, penalty=penalty, start=beta, max_rounds=max_rounds)
            beta = outside.beta
            score[index, fold] = everyone(beta).log_likelihood - outside.at.log_likelihood
    return PenaltyChoice(tuple(penalties), score)
