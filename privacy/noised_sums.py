"""Sums over patients with calibrated noise: what a hospital may tell of its patients at a price.

**Unit and neighbours.** One patient, with everything the hospital holds of them. Two cohorts are
neighbours if one is the other with one patient added or removed.

**Mechanism.** A question is answered by one vector of whole-number sums. It is given here as the
rows it is summed over, one a patient, so that its sensitivity is not argued but looked at: a row is
what adding or removing its patient changes, its length is at most the square root of the stated
``squared_bound``, and a longer one is refused. With ``D`` that root and ``z`` the hospital's
``statistics_noise``, each sum gets independent discrete Gaussian noise of parameter ``z D``
(`privacy.discrete_gaussian`). In the ledger that is one Gaussian mechanism of noise multiplier
``z``, without sampling, once: ``Spend(z, 1, 1)``.

**Fineness.** A count of one patient is `FINENESS` units. So the noise is hundreds of units wide and
more, and delta as a function of epsilon, of which the accountant takes that of the continuous law,
is the same for the discrete one to 1e-5 of its height from z = .3 on: a sum of fine steps in place
of the integral.

**What is computed from noised sums** (means, curves, totals that fit together) costs nothing.

**Not covered.** Counts of series or files, of which one patient can have any number, are not asked.
Which patients stand on which side of a split must not depend on other patients (`client.holdout`).
Images filed under two patient numbers leave out both; the two are one patient in the sense above.
That a question was asked at all, and that it was declined, is no secret.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from privacy.discrete_gaussian import Below, discrete_gaussian
from protocol.errors import PrivacyError
from protocol.stats.sums import FloatArray, IntArray

__all__ = ["FINENESS", "Block", "clamped", "noised_sums", "one_cell", "squared_sensitivity"]

FINENESS = 1024
# The largest whole number up to which a float64 holds every one.
MAX_TOTAL = 2**53


@dataclass(frozen=True)
class Block:
    """Some sums of one kind, as what each patient adds to them.

    Attributes
    ----------
    rows : int array (N, D)
        In units of ``1 / FINENESS``.
    squared_bound : int
        The largest squared L2 length a row can have, whoever the patient is; in squared units.
    """

    rows: IntArray
    squared_bound: int


def one_cell(cells: npt.ArrayLike, num_cells: int, weight: int = 1) -> Block:
    """Return a histogram in which every patient fills one cell at most.

    Parameters
    ----------
    cells : int array (N,)
        Each patient's cell, 0 to ``num_cells`` - 1; below 0 for none.
    weight : int
        With 2 the cells carry half the noise, and the other sums of the answer more.
    """
    at = np.asarray(cells, np.int64).ravel()
    rows = np.zeros((len(at), num_cells), np.int64)
    inside = np.flatnonzero(at >= 0)
    rows[inside, at[inside]] = FINENESS * weight
    return Block(rows, (FINENESS * weight) ** 2)


def clamped(values: npt.ArrayLike, ranges: Sequence[tuple[float, float]]) -> Block:
    """Return what count, mean and spread of variables follow from, V each of three kinds.

    A value is clamped to its public range, which maps to u in [-1, 1], and adds u and
    ``u^2 - 1/2``; a missing one adds 1 to a count of its own instead. So a variable's three entries
    are at most ``sqrt(1^2 + (1/2)^2)`` long, and how many values there are follows from the number
    of patients.

    Parameters
    ----------
    values : float array (N, V)
        nan where missing.
    ranges : sequence of (low, high), length V
        Public: chosen without these patients.

    Returns
    -------
    Block
        Columns: V of missing, V of u, V of ``u^2 - 1/2``.

    Raises
    ------
    PrivacyError
        If a range is empty or not finite.
    """
    low, high = np.array(ranges, np.float64).reshape(-1, 2).T
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise PrivacyError("A sum without a finite public range cannot be noised; state the range.")
    table = np.asarray(values, np.float64)
    table = table.reshape(len(table), len(low))
    missing = np.isnan(table)
    inside = np.clip(np.where(missing, low, table), low, high)
    unit = np.rint((2 * (inside - low) / (high - low) - 1) * FINENESS).astype(np.int64)
    unit = np.clip(unit, -FINENESS, FINENESS)
    square = unit**2 // FINENESS - FINENESS // 2
    parts = (missing * FINENESS, np.where(missing, 0, unit), np.where(missing, 0, square))
    rows = np.concatenate(parts, axis=1).astype(np.int64)
    return Block(rows, len(low) * (FINENESS**2 + (FINENESS // 2) ** 2))


def squared_sensitivity(blocks: Mapping[str, Block]) -> int:
    """Return the bound of what one patient changes in all blocks together, squared units."""
    return sum(block.squared_bound for block in blocks.values())


def noised_sums(
    blocks: Mapping[str, Block], noise_multiplier: float, below: Below = secrets.randbelow
) -> dict[str, FloatArray]:
    """Return the noised sums of each block, (D,), in patients (1 = one patient's full entry).

    The caller has reserved the spend before (`privacy.ledger`) and answers the same question by the
    same numbers after: a second draw of noise is a second answer.

    Parameters
    ----------
    blocks : mapping of str to Block
        All of one answer; the same patients in the same order.
    noise_multiplier : float
        z, above 0: the noise's standard deviation in multiples of the sensitivity.

    Raises
    ------
    PrivacyError
        If a patient's rows exceed the stated bound, the blocks are of different patients, or the
        noise multiplier is not a number above 0.
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise PrivacyError(
            f"statistics_noise is {noise_multiplier}, expected a number above 0; correct it in "
            "policy.yaml."
        )
    if len({len(block.rows) for block in blocks.values()}) > 1:
        raise PrivacyError("The sums of one answer are over different patients; nothing was told.")
    for name, block in blocks.items():
        _check(name, block)
    # Upwards: never less noise than the ledger is told.
    variance = math.ceil(Fraction(noise_multiplier) ** 2 * squared_sensitivity(blocks))
    told = {}
    for name, block in blocks.items():
        total = block.rows.sum(axis=0)
        noise = discrete_gaussian(Fraction(variance), len(total), below)
        told[name] = (total + noise).astype(np.float64) / FINENESS
    return told


def _check(name: str, block: Block) -> None:
    """Refuse a block whose rows are longer than is stated, before anything is told of it."""
    longest = int((block.rows**2).sum(axis=1).max(initial=0))
    small = np.abs(block.rows).sum() < MAX_TOTAL
    if longest > block.squared_bound or not small:
        raise PrivacyError(
            f"One patient adds more to the sums '{name}' than their stated bound; nothing was "
            "told, and the fault is in the program."
        )
