"""How the learning rate falls from round to round."""

import math

from protocol.training_config import LocalTraining

__all__ = ["round_learning_rate"]

LAST_FRACTION = 0.02


def round_learning_rate(training: LocalTraining, round_index: int, num_rounds: int) -> float:
    """Return the peak learning rate of one round.

    With ``round_decay="cosine"`` it falls from ``learning_rate`` in round 1 to 2 % of it in the
    last, so that the average of hospitals settles instead of circling the optimum.

    Parameters
    ----------
    round_index : int
        From 1 to ``num_rounds``.
    """
    if training.round_decay == "none" or num_rounds == 1:
        return training.learning_rate
    progress = (round_index - 1) / (num_rounds - 1)
    falling = 0.5 * (1 + math.cos(math.pi * progress))
    return training.learning_rate * (LAST_FRACTION + (1 - LAST_FRACTION) * falling)
