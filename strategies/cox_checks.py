"""When a Cox regression cannot be trusted: refused, with what to change."""

import numpy as np
import numpy.typing as npt

from protocol.errors import TrainingError
from protocol.stats.cox import CoxSums
from strategies.cox_penalty import Penalty

__all__ = ["check_first", "check_information", "check_same"]

FloatArray = npt.NDArray[np.float64]
# Below this ratio of eigenvalues the information has lost all its digits in some direction.
SINGULAR = 1e-10


def check_first(sums: CoxSums, beta: FloatArray, min_sites: int) -> None:
    """Refuse a regression without events, on too few hospitals, or answered elsewhere than asked.

    Raises
    ------
    TrainingError
    """
    if not np.array_equal(sums.beta, beta):
        raise TrainingError(
            "The hospitals' first Cox sums stand at other coefficients than asked for; ask again."
        )
    if sums.num_events == 0:
        raise TrainingError(
            f"None of {sums.num_patients} patients had an event, so a Cox regression has nothing "
            "to learn from; wait for follow-up or choose another endpoint."
        )
    if sums.num_sites < min_sites:
        raise TrainingError(
            f"{sums.num_sites} hospital(s) had events where at least {min_sites} must, so the "
            "coefficients would be those of single hospitals; add hospitals or use the pooled form."
        )


def check_same(trial: CoxSums, state: CoxSums) -> None:
    """Refuse an answer of other patients than the round before.

    Raises
    ------
    TrainingError
    """
    counts = (trial.num_patients, trial.num_events, trial.withheld)
    expected = (state.num_patients, state.num_events, state.withheld)
    if counts != expected:
        raise TrainingError(
            f"The Cox sums came from {trial.num_patients} patients and {trial.num_events} events, "
            f"after {state.num_patients} and {state.num_events} in the round before; ask the same "
            "hospitals every time."
        )


def check_information(sums: CoxSums, rule: Penalty, *, begun: bool) -> None:
    """Refuse a singular information matrix and name the covariates; the lasso needs none.

    Parameters
    ----------
    begun : bool
        Whether these are the first sums: then the covariates are at fault, later the way they
        separate the events.

    Raises
    ------
    TrainingError
    """
    if rule.lasso > 0:
        return
    curvature = rule.curvature(sums.information, sums.num_patients)
    diagonal = np.maximum(np.diag(curvature), 0.0)
    where = (
        "in the patients at risk when events happened" if begun else "at the coefficients reached"
    )
    flat = np.flatnonzero(diagonal == 0)
    if len(flat):
        names, what = sums.names[int(flat[0])], f"does not vary {where}"
    else:
        deviation = np.sqrt(diagonal)
        values, vectors = np.linalg.eigh(curvature / np.outer(deviation, deviation))
        if values[0] > SINGULAR * values[-1]:
            return
        involved = np.flatnonzero(np.abs(vectors[:, 0]) > 0.1)[:5]
        names = "', '".join(sums.names[int(j)] for j in involved)
        what = f"cannot be told apart {where}"
    raise TrainingError(
        f"The Cox information matrix is singular: '{names}' {what}; leave it out or add a ridge "
        "penalty."
    )
