"""Counts that fit together, from noised ones: post-processing, which costs no privacy.

Noise makes counts negative and parts that do not add up to their whole. Who cuts the negative ones
off adds patients; so a table is moved to the nearest one of counts of at least 0 that add up to the
number of patients, which leaves a table of little noise nearly as it was and takes most of the
noise out of one with many empty cells.
"""

import numpy as np
import numpy.typing as npt

from protocol.stats.sums import FloatArray, IntArray

__all__ = ["in_multiples", "nearest_table", "whole_counts"]


def nearest_table(noised: npt.ArrayLike, total: float) -> FloatArray:
    """Return the nearest table (least squares) of entries of at least 0 with the given sum.

    ``max(x - t, 0)`` with the one t that gives the sum: Duchi et al., ICML 2008, figure 1.

    Parameters
    ----------
    noised : float array, any shape
    total : float
        At least 0; with 0 every entry is.
    """
    table = np.asarray(noised, np.float64)
    if total <= 0 or not table.size:
        return np.zeros(table.shape)
    falling = np.sort(table, axis=None)[::-1]
    excess = np.cumsum(falling) - total
    kept = np.flatnonzero(falling * np.arange(1, table.size + 1) >= excess)[-1]
    return np.maximum(table - excess[kept] / (kept + 1), 0.0)


def whole_counts(table: npt.ArrayLike) -> IntArray:
    """Round a table of entries of at least 0 to whole numbers with the rounded sum.

    Everything is rounded down, and those that lost most, the first of equals, get one back.
    """
    entries = np.asarray(table, np.float64)
    counts = np.floor(entries).astype(np.int64)
    short = int(np.rint(entries.sum())) - int(counts.sum())
    order = np.argsort((counts - entries).ravel(), kind="stable")
    flat = counts.ravel().copy()
    flat[order[: max(short, 0)]] += 1
    return np.asarray(flat.reshape(entries.shape), np.int64)


def in_multiples(counts: npt.ArrayLike, min_cell: int) -> IntArray:
    """Return a row of counts as multiples of ``min_cell``; what is cut off goes to the next cell.

    So no count of 1 .. ``min_cell`` - 1 is told, patients move by few cells, and the sum changes by
    less than ``min_cell``. Only for counts that carry noise: of exact ones, the cell at which a
    multiple is full would tell where a patient stands (`protocol.stats.cells`).

    Parameters
    ----------
    counts : int array (K,)
        In an order in which neighbours are alike.
    """
    cells = np.asarray(counts, np.int64)
    told, rest = np.zeros(cells.shape, np.int64), 0
    for place, count in enumerate(cells.tolist()):
        rest += count
        told[place] = max((2 * rest + min_cell) // (2 * min_cell), 0) * min_cell
        rest -= int(told[place])
    return told
