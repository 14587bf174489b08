"""Boxes of a large, nearly empty table of counts: no published box holds 1 .. k-1 patients.

As in `protocol.stats.cells` a fixed grid is halved and boundaries never walk along the data. Here
the table has so many cells that only the occupied ones can be listed, and its axes are of unlike
things, so that the axis to halve is the one that has been halved least, not the longest: a box of
1000 scores by 60 months would else be cut by score until nothing is left to cut by month.
"""

import numpy as np

from protocol.errors import PayloadError
from protocol.stats.cells import is_small
from protocol.stats.sums import IntArray, require

__all__ = ["occupied_boxes"]


def occupied_boxes(
    cells: IntArray, counts: IntArray, shape: tuple[int, ...], min_cell: int
) -> IntArray:
    """Return the boxes that hold patients, each at least ``min_cell`` of them.

    The box of the whole table is halved along the axis of which it covers the largest share (if
    that fails, along the next; the earlier of equal ones first) as long as neither half holds 1 ..
    ``min_cell`` - 1 patients; halves without patients are dropped.

    Parameters
    ----------
    cells : int array (M, D)
        Index of each occupied cell.
    counts : int array (M,)
        Patients in the cell.
    shape : tuple of int, length D
        Cells along each axis.
    min_cell : int
        Smallest publishable count, at least 1; 1 leaves every cell as it is.

    Returns
    -------
    int array (B, 2 D + 1)
        First and last index along each axis, and the patients of the box. Without a row if the
        table holds no patient.

    Raises
    ------
    PayloadError
        If ``min_cell`` is below 1, or the whole table is small and must be withheld.
    """
    if min_cell < 1:
        raise PayloadError(f"min_cell is {min_cell}; the smallest publishable count is at least 1.")
    require(
        not is_small(int(counts.sum()), min_cell),
        "A table with fewer patients than min_cell has no publishable box; withhold it.",
    )
    axes = len(shape)
    done: list[list[int]] = []
    whole = np.array([[0, length - 1] for length in shape], np.int64)
    pending = [(whole, np.flatnonzero(counts))] if counts.sum() else []
    while pending:
        box, members = pending.pop()
        halves = _halves(cells, counts, box, members, shape, min_cell)
        if halves:
            pending.extend(half for half in halves if len(half[1]))
        else:
            done.append([*box.ravel().tolist(), int(counts[members].sum())])
    return np.array(done, np.int64).reshape(-1, 2 * axes + 1)


def _halves(
    cells: IntArray,
    counts: IntArray,
    box: IntArray,
    members: IntArray,
    shape: tuple[int, ...],
    min_cell: int,
) -> list[tuple[IntArray, IntArray]]:
    lengths = box[:, 1] - box[:, 0] + 1
    for axis in np.argsort(-lengths / np.asarray(shape), kind="stable"):
        if lengths[axis] < 2:
            continue
        middle = box[axis, 0] + lengths[axis] // 2
        below = cells[members, axis] < middle
        parts = (members[below], members[~below])
        if any(is_small(int(counts[part].sum()), min_cell) for part in parts):
            continue
        first, second = box.copy(), box.copy()
        first[axis, 1], second[axis, 0] = middle - 1, middle
        return [(first, parts[0]), (second, parts[1])]
    return []
