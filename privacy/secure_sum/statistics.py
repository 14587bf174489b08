"""A tree of statistics as one vector of words of 64 bits, each number on a grid of its own.

Counts are whole; what steps the other numbers have, and what rounding to them costs, is said in
`protocol.stats.vectors`. Words add modulo 2^64 whatever step they stand for, and a hospital whose
number is too large for its grid refuses before it masks (or cuts it, where that is harmless), so no
sum wraps around.
"""

from typing import Any

import numpy as np

from privacy.secure_sum.quantise import FixedPoint, WordArray
from protocol.errors import PayloadError
from protocol.stats.vectors import SATURATED, from_vector, step_bits, to_vector
from protocol.summed.tree import Tree, leaves, with_leaves

__all__ = ["num_words", "pack_statistics", "unpack_statistics"]


def num_words(tree: Tree) -> int:
    """Return how long the vector of a tree is."""
    return sum(to_vector(leaf).size for _, leaf in leaves(tree))


def pack_statistics(tree: Tree, num_hospitals: int, usual_step_bits: int) -> WordArray:
    """Return a hospital's statistics as words.

    Parameters
    ----------
    num_hospitals : int
        How many such vectors are added at most.
    usual_step_bits : int
        Bits below the point of floats that have no other number of them.

    Raises
    ------
    PrivacyError
        If a number is not finite or beyond what the sum carries.
    PayloadError
        If a statistic is none that adds.
    """
    parts = [np.zeros(0, np.uint64)]
    for path, leaf in leaves(tree):
        values, bits = to_vector(leaf), step_bits(leaf, usual_step_bits)
        words = np.zeros(values.size, np.uint64)
        for step in np.unique(bits).tolist():
            at = bits == step
            what = f"The statistic '{'/'.join(path)}'"
            grid, told = FixedPoint(step, 64), values[at]
            if type(leaf) in SATURATED:
                end = grid.largest(num_hospitals)
                told = np.clip(np.nan_to_num(told, nan=-end, posinf=end, neginf=-end), -end, end)
            words[at] = grid.encode(told, num_hospitals, what)
        parts.append(words)
    return np.concatenate(parts)


def unpack_statistics(nobody: Tree, words: WordArray, usual_step_bits: int) -> dict[str, Any]:
    """Return what a sum of `pack_statistics` stands for.

    Parameters
    ----------
    nobody : tree
        The statistics of no patient.

    Raises
    ------
    PayloadError
        If the vector has another length, or its numbers are impossible ones.
    """
    if words.size != num_words(nobody):
        raise PayloadError(
            f"A secure sum holds {words.size} numbers and the question asked for "
            f"{num_words(nobody)}; both ends must run the same version."
        )
    found, start = [], 0
    for _, leaf in leaves(nobody):
        bits = step_bits(leaf, usual_step_bits)
        part = words[start : start + bits.size]
        values = part.view(np.int64).astype(np.float64) * np.exp2(-bits.astype(np.float64))
        found.append(from_vector(leaf, values))
        start += bits.size
    return with_leaves(nobody, found)
