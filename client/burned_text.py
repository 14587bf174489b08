"""Text that was burned into the pixels, found by its strokes.

Workstations that export "for teaching" draw a name, a number or a date into the image, and no tag
need say so. Drawn text differs from tissue in three ways: it is the brightest there is and all of
one value, its edges fall to the background within a pixel, and its strokes stand in a line, apart
from each other and of one height.

Axes: T phases, Z slices, Y rows, X columns.
"""

import numpy as np
from scipy.ndimage import binary_dilation, find_objects, label

__all__ = ["text_characters"]

# Beside the very brightest: a hot pixel or a spike may outshine the text.
PERCENTILES = (100.0, 99.9, 99.5)
BRIGHT = 0.9
# Outside a stroke the image falls below this share of the stroke's value within a pixel or two.
DARK = 0.65
MIN_HEIGHT_PX, MAX_SHARE = 5, 1 / 8
MAX_FILL, SLENDER = 0.8, 2.5
CENTRE = 0.25
MAX_PARTS = 2000


def text_characters(stack: np.ndarray) -> int:
    """Return the length of the longest line of text in any slice, characters; 0 without text.

    The middle quarter of the image, where the heart lies, is not looked at.

    Parameters
    ----------
    stack : ndarray, shape (T, Z, Y, X)
        Physical or stored values. What moves from phase to phase is not text.
    """
    still = stack.min(axis=0)
    return max((_longest_line(plane) for plane in still), default=0)


def _longest_line(plane: np.ndarray) -> int:
    best = 0
    for level in {float(np.percentile(plane, share)) for share in PERCENTILES}:
        if level > 0:
            best = max(best, _in_a_row(_characters(plane, BRIGHT * level)))
    return best


def _characters(plane: np.ndarray, threshold: float) -> list[tuple[int, int, int, int]]:
    """Return (top, bottom, left, right) of what is drawn like a character."""
    bright = plane >= threshold
    parts, count = label(bright, np.ones((3, 3), int))
    if not 0 < count <= MAX_PARTS:
        return []
    rows, cols = plane.shape
    found = []
    for index, (ys, xs) in enumerate(find_objects(parts), start=1):
        height, width = ys.stop - ys.start, xs.stop - xs.start
        if not (MIN_HEIGHT_PX <= height <= rows * MAX_SHARE and width <= cols * MAX_SHARE):
            continue
        if _central(ys, rows) and _central(xs, cols):
            continue
        around = (_wider(ys, rows), _wider(xs, cols))
        part = parts[around] == index
        # A full rectangle is a marker or a chip of fat; an upright bar may be a 1 or an I.
        if part.sum() > MAX_FILL * height * width and height < SLENDER * width:
            continue
        ring = binary_dilation(part, iterations=2) & ~bright[around]
        if ring.any() and np.median(plane[around][ring]) < DARK * threshold:
            found.append((ys.start, ys.stop, xs.start, xs.stop))
    return found


def _central(span: slice, size: int) -> bool:
    middle = (span.start + span.stop) / 2 / size
    return abs(middle - 0.5) < CENTRE


def _wider(span: slice, size: int) -> slice:
    return slice(max(0, span.start - 2), min(size, span.stop + 2))


def _in_a_row(boxes: list[tuple[int, int, int, int]]) -> int:
    """Return the most boxes that follow each other on one line: one height, small gaps."""
    best = 0
    chains: list[tuple[tuple[int, int, int, int], int]] = []
    for box in sorted(boxes, key=lambda b: b[2]):
        length = 1 + max((n for last, n in chains if _follows(last, box)), default=0)
        chains.append((box, length))
        best = max(best, length)
    return best


def _follows(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    heights = one[1] - one[0], other[1] - other[0]
    overlap = min(one[1], other[1]) - max(one[0], other[0])
    gap = other[2] - one[3]
    return (
        max(heights) <= 1.6 * min(heights)
        and overlap >= 0.6 * min(heights)
        and -1 <= gap <= 1.5 * max(heights)
    )
