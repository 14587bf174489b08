"""Which hospital sent this update, and did this one take part? An attack by likeness.

The adversary has seen updates of every hospital before (an earlier study, or records that leaked),
and compares what is released with their means by cosine, the mean of all hospitals taken out first:
what is left is what is peculiar to a hospital. Privacy of patients does not promise that a hospital
cannot be told; the figure says how far it can.

Shapes: S hospitals, U updates seen of each before, R released ones, D weights.
"""

import numpy as np

__all__ = ["likeness", "origin_scores", "participation_scores"]


def likeness(seen: np.ndarray, released: np.ndarray) -> np.ndarray:
    """Return the cosine of each released update with what is peculiar to each hospital, (R, S).

    Parameters
    ----------
    seen : ndarray
        (S, U, D), S >= 2.
    released : ndarray
        (R, D).
    """
    means = seen.mean(axis=1)
    common = means.mean(axis=0)
    return _unit(released - common) @ _unit(means - common).T


def origin_scores(
    seen: np.ndarray, released: np.ndarray, origins: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Judge guesses of the sender.

    Parameters
    ----------
    origins : ndarray
        (R,) int, the hospital that sent each update.

    Returns
    -------
    scores, members : ndarray
        (R, S): likeness, and whether the update is that hospital's; for
        `privacy.audit.roc.area_under_curve`.
    accuracy : float
        Share of updates most like their own hospital; chance is 1 / S.
    """
    scores = likeness(seen, released)
    members = origins[:, None] == np.arange(len(seen))
    return scores, members, float((scores.argmax(axis=1) == origins).mean())


def participation_scores(
    seen: np.ndarray, means: np.ndarray, took_part: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and truth of who took part in each mean of updates.

    Parameters
    ----------
    means : ndarray
        (R, D) means over the hospitals of ``took_part``.
    took_part : ndarray
        (R, S) bool.

    Returns
    -------
    scores, members : ndarray
        (R, S).
    """
    return likeness(seen, means), took_part


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(float).tiny)
