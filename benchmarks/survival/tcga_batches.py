"""Steps of gradient descent on small batches of TCGA-BRCA, many linear Cox models at once.

The loss of a batch is Breslow's negative log partial likelihood over its number of patients,
`shared_models.heads.cox.partial_nll` with ``ties="breslow"``; with ``f = x w`` its gradient is, in
closed form::

    dL/df_j = 1/n sum_{i: event} [t_j >= t_i] exp(f_j) / sum_{k: t_k >= t_i} exp(f_k) - 1/n e_j

Axes: M models, S steps, B patients of a batch, N patients, P covariates. A bias has no gradient, as
adding a constant to every score changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tcga_data import Patients

__all__ = ["Batches", "cox_gradient"]

# Stands for nobody in a batch that is not full: at risk at no event.
NOBODY = -1.0


def cox_gradient(
    weights: np.ndarray, x: np.ndarray, months: np.ndarray, event: np.ndarray
) -> np.ndarray:
    """Return the gradient of each model's loss on its batch, (M, P).

    Parameters
    ----------
    weights : numpy.ndarray
        (M, P).
    x, months, event : numpy.ndarray
        (M, B, P), (M, B) and (M, B); months of -1 for nobody.
    """
    score = np.einsum("mbp,mp->mb", x, weights)
    at_risk = months[:, None, :] >= months[:, :, None]
    of_risk_set = np.where(at_risk, score[:, None, :], -np.inf)
    share = np.exp(of_risk_set - of_risk_set.max(axis=2, keepdims=True))
    share /= share.sum(axis=2, keepdims=True)
    by_score = np.einsum("mi,mij->mj", event, share) - event
    size = (months != NOBODY).sum(axis=1, keepdims=True)
    return np.einsum("mb,mbp->mp", by_score / size, x)


@dataclass(frozen=True)
class Batches:
    """Batches of M streams, each shuffled anew in every pass: rows (M, S, B) of M tables."""

    x: np.ndarray
    months: np.ndarray
    event: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(
        cls,
        patients: Sequence[Patients],
        rngs: Sequence[np.random.Generator],
        size: int,
        num_steps: int,
    ) -> "Batches":
        """Draw the batches of each stream; the last of a pass may be smaller."""
        longest = max(map(len, patients))

        def table(values: Callable[[Patients], np.ndarray], fill: float) -> np.ndarray:
            first = values(patients[0])
            found = np.full((len(patients), longest + 1, *first.shape[1:]), fill)
            for place, part in enumerate(patients):
                found[place, : len(part)] = values(part)
            return found

        streams = [_rows(len(p), r, size, num_steps) for p, r in zip(patients, rngs, strict=True)]
        return cls(
            table(lambda part: part.x, 0.0),
            # A month more for everyone: whoever was not seen again is somebody too.
            table(lambda part: part.months + 1, NOBODY),
            table(lambda part: part.event, 0.0),
            np.stack(streams),
        )

    def gradient(self, models: np.ndarray, weights: np.ndarray, step: int) -> np.ndarray:
        """Return the gradients of some streams' models on their batch of one step.

        Parameters
        ----------
        models : numpy.ndarray
            Which streams, integers (M',).
        weights : numpy.ndarray
            (M', P).
        """
        rows, at = self.rows[models, step], models[:, None]
        return cox_gradient(weights, self.x[at, rows], self.months[at, rows], self.event[at, rows])


def _rows(number: int, rng: np.random.Generator, size: int, num_steps: int) -> np.ndarray:
    """Return the rows of each step, (S, B), -1 (the table's last row) where a batch is short."""
    per_pass = -(-number // size)
    passes = -(-num_steps // per_pass)
    rows = np.full((passes, per_pass * size), -1)
    for each in rows:
        each[:number] = rng.permutation(number)
    return rows.reshape(-1, size)[:num_steps]
