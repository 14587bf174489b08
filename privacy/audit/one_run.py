"""A lower bound on epsilon from one training run: marked records, guesses, a binomial tail.

m canaries are each put in by the flip of a fair coin; from what was released, the auditor guesses
for r of them whether they are in (abstaining from the others) and is right v times. Under
(epsilon, delta)-DP, W ~ Binomial(r, q) with ``q = e^epsilon / (1 + e^epsilon)``,

    P[right >= v] <= P[W >= v] + 2 m delta max_{i=1..v} P[v > W >= v - i] / i.

An epsilon for which the right side is below ``1 - confidence`` is refuted. The bound may be far
below the true epsilon; it refutes code that is wrong, and proves none right.

References
----------
Steinke, Nasr & Jagielski, Privacy Auditing with One (1) Training Run, NeurIPS 2023,
arXiv:2305.08846, Theorem 5.2 and Appendix D.
"""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["OneRunAudit", "audit_one_run", "epsilon_lower_bound", "guess", "guess_p_value"]

# Beyond this epsilon no number of canaries that fits into a study says anything.
LARGEST_EPSILON = 64.0
BISECTIONS = 60


@dataclass(frozen=True)
class OneRunAudit:
    """What the auditor guessed, and what that refutes.

    Attributes
    ----------
    num_canaries, num_guesses, num_correct : int
        m >= r >= v.
    delta, confidence : float
        Delta of the claim and confidence of the bound, in [0, 1) and (0, 1).
    epsilon_lower : float
        With that confidence the mechanism is not (epsilon, delta)-DP for any epsilon below; >= 0.
    """

    num_canaries: int
    num_guesses: int
    num_correct: int
    delta: float
    confidence: float
    epsilon_lower: float

    def refutes(self, epsilon: float) -> bool:
        """Return whether a claim of (``epsilon``, delta)-DP is refuted."""
        return self.epsilon_lower > epsilon


def binomial_masses(trials: int, chance: float) -> np.ndarray:
    """Return P[Binomial(trials, chance) = k], (trials + 1,), for a chance in (0, 1)."""
    logs = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(chance)
        + (trials - k) * math.log1p(-chance)
        for k in range(trials + 1)
    ]
    return np.exp(logs)


def guess_p_value(
    num_canaries: int, num_guesses: int, num_correct: int, epsilon: float, delta: float
) -> float:
    """Return the largest chance of so many right guesses under (epsilon, delta)-DP, in [0, 1].

    Raises
    ------
    ValueError
        If the counts are not ``0 <= num_correct <= num_guesses <= num_canaries``, epsilon is
        negative or not finite, or delta outside [0, 1).
    """
    if not 0 <= num_correct <= num_guesses <= num_canaries:
        raise ValueError(
            f"{num_correct} right of {num_guesses} guesses about {num_canaries} canaries: each "
            "must be at most the next"
        )
    if not (0 <= epsilon < math.inf and 0 <= delta < 1):
        raise ValueError(f"epsilon {epsilon} and delta {delta} must be >= 0 and in [0, 1)")
    # 1 - 1 / (1 + e^epsilon) would be 1 from epsilon 37 on, and its logarithm of failure infinite.
    masses = binomial_masses(num_guesses, 1 / (1 + math.exp(-min(epsilon, 36.0))))
    tail = float(masses[num_correct:].sum())
    # P[v > W >= v - i] for i = 1..v.
    below = np.cumsum(masses[:num_correct][::-1])
    steepest = float((below / np.arange(1, num_correct + 1)).max()) if num_correct else 0.0
    return min(1.0, tail + 2 * num_canaries * delta * steepest)


def epsilon_lower_bound(
    num_canaries: int,
    num_guesses: int,
    num_correct: int,
    delta: float,
    confidence: float = 0.99,
) -> float:
    """Return the largest epsilon that so many right guesses refute, >= 0.

    Without delta and with every guess right it is ``ln(q / (1 - q))``, ``q = (1 - confidence)^(1 /
    num_guesses)``.

    Raises
    ------
    ValueError
        As in `guess_p_value`, or if the confidence is outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must be in (0, 1)")

    def refuted(epsilon: float) -> bool:
        p = guess_p_value(num_canaries, num_guesses, num_correct, epsilon, delta)
        return p < 1 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, LARGEST_EPSILON
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def guess(scores: np.ndarray, num_guesses: int) -> np.ndarray:
    """Guess "in" for the highest scores and "out" for the lowest.

    Parameters
    ----------
    scores : ndarray
        (m,), higher where the canary is more likely in.
    num_guesses : int
        r in 0..m; half of them (the larger half) are "in". To be chosen before the scores are seen:
        choosing the best afterwards would void the confidence.

    Returns
    -------
    ndarray
        (m,) int: 1 in, -1 out, 0 no guess. Of equal scores the first stand lower.

    Raises
    ------
    ValueError
        If there are more guesses than scores.
    """
    if not 0 <= num_guesses <= len(scores):
        raise ValueError(f"{num_guesses} guesses about {len(scores)} canaries are too many")
    order = np.argsort(scores, kind="stable")
    num_in = (num_guesses + 1) // 2
    guesses = np.zeros(len(scores), np.int64)
    guesses[order[len(order) - num_in :]] = 1
    guesses[order[: num_guesses - num_in]] = -1
    return guesses


def audit_one_run(
    scores: np.ndarray,
    included: np.ndarray,
    *,
    delta: float,
    num_guesses: int | None = None,
    confidence: float = 0.99,
) -> OneRunAudit:
    """Guess from the scores, count what was right, and return the bound.

    Parameters
    ----------
    scores : ndarray
        (m,), higher where the canary is more likely in; from released values alone.
    included : ndarray
        (m,) bool, the coins.
    num_guesses : int, optional
        r; half of the canaries by default (see `guess`).
    """
    number = len(scores) // 2 if num_guesses is None else num_guesses
    guesses = guess(scores, number)
    correct = int(((guesses == 1) & included).sum() + ((guesses == -1) & ~included).sum())
    bound = epsilon_lower_bound(len(scores), number, correct, delta, confidence)
    return OneRunAudit(len(scores), number, correct, delta, confidence, bound)
