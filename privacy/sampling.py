"""Poisson sampling of patients, whose amplification the accountant counts on.

Each patient joins a step by a coin of their own. Batches of a fixed size out of a shuffled list are
another mechanism: reporting them as this one understates the loss several times over (Chua et al.,
ICML 2024; Annamalai et al., arXiv 2411.10614). So a batch has any size, also none, and what is
computed from it is divided by the size to be expected, which says nothing about who was drawn.
"""

import numpy as np

from privacy.noise import NoiseSource

__all__ = ["draw_slices", "poisson_sample"]


def poisson_sample(num_patients: int, rate: float, source: NoiseSource) -> np.ndarray:
    """Return the rows of the patients who join a step.

    Parameters
    ----------
    num_patients : int
        Patients to draw from, >= 0.
    rate : float
        q, each patient's chance, in (0, 1]; 1 takes everybody.
    source : NoiseSource
        The hospital's own: who was drawn must not follow from anything that another knows.

    Returns
    -------
    ndarray
        Int64, increasing, of a length that is Binomial(num_patients, q).
    """
    if num_patients < 0 or not 0 < rate <= 1:
        raise ValueError(f"num_patients {num_patients} is below 0 or rate {rate} outside (0, 1]")
    return np.flatnonzero(source.uniform(num_patients) < rate)


def draw_slices(counts: np.ndarray, num_drawn: int, source: NoiseSource) -> np.ndarray:
    """Return which of their slices each patient gives to a step.

    Parameters
    ----------
    counts : ndarray
        (P,) slices of each patient, >= 1.
    num_drawn : int
        Slices to draw of each patient, >= 1.

    Returns
    -------
    ndarray
        (P, num_drawn) int64, each in [0, count of the patient). Without replacement: nobody's slice
        comes twice before all of theirs have come once. A patient with fewer slices than
        ``num_drawn`` repeats them, as evenly as possible, so that tensors are rectangular; their
        loss is still a mean over their own slices, and their gradient is clipped like any other.
    """
    if num_drawn < 1 or (len(counts) and counts.min() < 1):
        raise ValueError(f"num_drawn {num_drawn} and all counts of slices must be 1 at least")
    drawn = np.empty((len(counts), num_drawn), dtype=np.int64)
    uniform = source.uniform(int(counts.sum()))
    ends = np.cumsum(counts)
    for row, (count, end) in enumerate(zip(counts, ends, strict=True)):
        order = np.argsort(uniform[end - count : end], kind="stable")
        drawn[row] = np.resize(order, num_drawn)
    return drawn
