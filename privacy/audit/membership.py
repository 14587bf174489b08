"""Was this patient among those trained on? Two attacks on a released network's losses.

The simple one calls a low loss membership. The likelihood ratio (LiRA) asks how the loss of this
very patient is distributed over shadow models trained with them and without them, taken as
Gaussian:

    online:  ln N(s; mean_in, sd_in) - ln N(s; mean_out, sd_out)
    offline: P[N(mean_out, sd_out) <= s]

where s is a confidence that rises as the loss falls. The adversary knows the training method and
patients like these; online, the patient in question as well when the shadows are trained.

Shapes: M models, N records.

References
----------
Yeom et al., CSF 2018 (loss threshold); Carlini et al., Membership Inference Attacks From First
Principles, IEEE S&P 2022, Algorithm 1 and section IV.
"""

import math
from collections.abc import Callable

import numpy as np

__all__ = [
    "attack_each",
    "confidence_of",
    "likelihood_ratio_offline",
    "likelihood_ratio_online",
    "loss_threshold",
]

Attack = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

SMALLEST_LOSS, LARGEST_LOSS = 1e-12, 500.0
# Below this many shadows on a side a record's own variance is noise; one for all is steadier
# (Carlini et al. 2022, section VI-C).
OWN_VARIANCE_FROM = 32
SMALLEST_SD = 1e-6


def confidence_of(losses: np.ndarray) -> np.ndarray:
    """Return ``ln(p / (1 - p))`` for a loss ``-ln p``, which is nearly Gaussian over models."""
    bounded = np.clip(np.asarray(losses, float), SMALLEST_LOSS, LARGEST_LOSS)
    return -bounded - np.log(-np.expm1(-bounded))


def loss_threshold(
    target: np.ndarray, shadows: np.ndarray, shadow_members: np.ndarray
) -> np.ndarray:
    """Return the target's confidences (N,) themselves: no shadow is needed."""
    del shadows, shadow_members
    return target


def likelihood_ratio_online(
    target: np.ndarray, shadows: np.ndarray, shadow_members: np.ndarray
) -> np.ndarray:
    """Return the log-likelihood ratio of membership, (N,), higher for members.

    Parameters
    ----------
    target : ndarray
        (N,) confidences under the attacked model.
    shadows : ndarray
        (S, N) confidences under the shadow models.
    shadow_members : ndarray
        (S, N) bool, which records each shadow was trained on.

    Raises
    ------
    ValueError
        If a record has no shadow trained with it, or none without.
    """
    mean_in, sd_in = _gaussian(shadows, shadow_members)
    mean_out, sd_out = _gaussian(shadows, ~shadow_members)
    return _log_density(target, mean_in, sd_in) - _log_density(target, mean_out, sd_out)


def likelihood_ratio_offline(
    target: np.ndarray, shadows: np.ndarray, shadow_members: np.ndarray
) -> np.ndarray:
    """Return how far each confidence lies above those of models without the record, (N,), in sd.

    A monotone function of the offline probability, which would round to 1 for clear members.
    """
    mean_out, sd_out = _gaussian(shadows, ~shadow_members)
    return (target - mean_out) / sd_out


def attack_each(confidences: np.ndarray, members: np.ndarray, attack: Attack) -> np.ndarray:
    """Attack every model with all others as its shadows; return scores (M, N).

    Parameters
    ----------
    confidences, members : ndarray
        (M, N), of models trained alike on random halves of the records.
    """
    everyone = np.arange(len(confidences))
    return np.stack(
        [
            attack(confidences[index], confidences[others], members[others])
            for index in everyone
            for others in (everyone[everyone != index],)
        ]
    )


def _gaussian(values: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = used.sum(axis=0)
    if (counts == 0).any():
        raise ValueError(
            f"{int((counts == 0).sum())} records have no shadow model of one side; train more"
        )
    means = np.where(used, values, 0.0).sum(axis=0) / counts
    squares = (np.where(used, values - means, 0.0) ** 2).sum(axis=0)
    if counts.min() < OWN_VARIANCE_FROM:
        freedom = max(int((counts - 1).sum()), 1)
        squares, counts = np.full_like(squares, squares.sum() / freedom), np.ones_like(counts)
    return means, np.maximum(np.sqrt(squares / counts), SMALLEST_SD)


def _log_density(values: np.ndarray, means: np.ndarray, sds: np.ndarray) -> np.ndarray:
    return -(((values - means) / sds) ** 2) / 2 - np.log(sds) - math.log(2 * math.pi) / 2
