"""Coarser cells for small counts: no published cell holds 1 .. k-1 patients.

The cells are found by halving a fixed grid and never by walking along the data: a boundary that
moved with the data would itself tell where the k-th patient stands (with greedy bins the month of
every k-th event could be read off the boundaries).
"""

import numpy as np

from protocol.errors import PayloadError
from protocol.stats.sums import FloatArray, IntArray

__all__ = ["blocks", "is_small", "spread"]

Block = tuple[slice, ...]


def is_small(count: float, min_cell: int) -> bool:
    """Whether a count of patients must not be published: 1 .. ``min_cell`` - 1."""
    return 0 < count < min_cell


def blocks(counts: IntArray, min_cell: int) -> list[Block]:
    """Cut a table of counts into boxes that hold 0 or at least ``min_cell`` patients each.

    A box is halved along its longest axis (if that fails, along the next) as long as neither half
    is small. If the whole table is small, the only box is the whole table: the caller withholds it.

    Parameters
    ----------
    counts : int array, any shape
        Patients per cell of a fixed grid.
    min_cell : int
        Smallest publishable count, at least 1; 1 leaves every cell as it is.

    Returns
    -------
    list of tuple of slice
        Disjoint boxes that cover the table.
    """
    if min_cell < 1:
        raise PayloadError(f"min_cell is {min_cell}; the smallest publishable count is at least 1.")
    done: list[Block] = []
    open_boxes: list[Block] = [tuple(slice(0, length) for length in counts.shape)]
    while open_boxes:
        box = open_boxes.pop()
        halves = _halves(counts, box, min_cell)
        if halves is None:
            done.append(box)
        else:
            open_boxes.extend(halves)
    return done


def _halves(counts: IntArray, box: Block, min_cell: int) -> tuple[Block, Block] | None:
    lengths = [side.stop - side.start for side in box]
    for axis in sorted(range(len(box)), key=lambda index: -lengths[index]):
        if lengths[axis] < 2:
            return None
        middle = box[axis].start + lengths[axis] // 2
        first = (*box[:axis], slice(box[axis].start, middle), *box[axis + 1 :])
        second = (*box[:axis], slice(middle, box[axis].stop), *box[axis + 1 :])
        if not any(is_small(int(counts[half].sum()), min_cell) for half in (first, second)):
            return first, second
    return None


def spread(counts: IntArray, min_cell: int) -> FloatArray:
    """Return the table with the content of every box of `blocks` spread evenly over the box.

    The total is kept, the cells become fractions, and a table that is small as a whole becomes
    zeros.
    """
    result = np.zeros(counts.shape)
    if not counts.size or is_small(int(counts.sum()), min_cell):
        return result
    for box in blocks(counts, min_cell):
        cells = counts[box]
        result[box] = cells.sum() / cells.size
    return result
