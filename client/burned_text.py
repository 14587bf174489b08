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
ALONE = 1

Extent = tuple[int, int, int, int]
"""Top, bottom, left and right of a part."""


def text_characters(stack: np.ndarray) -> int:
    """Return the length of the longest line of text in any slice, characters; 0 without text.

    What stands alone is no line: most of that is a vessel or a chip of fat.

    The middle quarter of the image, where the heart lies, is not looked at.

    Parameters
    ----------
    stack : ndarray, shape (T, Z, Y, X)
        Physical or stored values. What moves from phase to phase is not text.
    """
    still = stack.min(axis=0)
    # Sorted once a slice, and equal levels looked at once.
    levels = np.percentile(still, PERCENTILES, axis=(1, 2)).T
    best = ALONE
    for plane, shares in zip(still, levels, strict=True):
        for level in sorted({float(share) for share in shares if share > 0}):
            best = max(best, _longest_line(plane, BRIGHT * level, best))
    return best if best > ALONE else 0


def _longest_line(plane: np.ndarray, threshold: float, known: int) -> int:
    """Return the length of the longest line of text, or 0 where none is longer than ``known``."""
    bright = plane >= threshold
    parts, count = label(bright, np.ones((3, 3), int))
    if not 0 < count <= MAX_PARTS:
        return 0
    boxes = _boxes(parts)
    extents = [_extent(box) for box in boxes.values()]
    # Edges are looked at last, and only of what stands in a line that is long enough.
    drawn = [
        extent
        for (index, box), extent, length in zip(
            boxes.items(), extents, _line_lengths(extents), strict=True
        )
        if length > known and _drawn(plane, parts, bright, index, box, threshold)
    ]
    return max(_line_lengths(drawn), default=0)


def _boxes(parts: np.ndarray) -> dict[int, tuple[slice, slice]]:
    """Return where each part lies that has the size of a character and is not in the middle."""
    rows, cols = parts.shape
    found = {}
    for index, (ys, xs) in enumerate(find_objects(parts), start=1):
        height, width = ys.stop - ys.start, xs.stop - xs.start
        if not (MIN_HEIGHT_PX <= height <= rows * MAX_SHARE and width <= cols * MAX_SHARE):
            continue
        if not (_central(ys, rows) and _central(xs, cols)):
            found[index] = (ys, xs)
    return found


def _extent(box: tuple[slice, slice]) -> Extent:
    ys, xs = box
    return ys.start, ys.stop, xs.start, xs.stop


def _drawn(
    plane: np.ndarray,
    parts: np.ndarray,
    bright: np.ndarray,
    index: int,
    box: tuple[slice, slice],
    threshold: float,
) -> bool:
    """Whether a part is drawn like a character: strokes, with edges that fall at once."""
    top, bottom, left, right = _extent(box)
    height, width = bottom - top, right - left
    around = (_wider(box[0], plane.shape[0]), _wider(box[1], plane.shape[1]))
    part = parts[around] == index
    # A full rectangle is a marker or a chip of fat; an upright bar may be a 1 or an I.
    if part.sum() > MAX_FILL * height * width and height < SLENDER * width:
        return False
    ring = binary_dilation(part, iterations=2) & ~bright[around]
    return bool(ring.any() and np.median(plane[around][ring]) < DARK * threshold)


def _central(span: slice, size: int) -> bool:
    middle = (span.start + span.stop) / 2 / size
    return abs(middle - 0.5) < CENTRE


def _wider(span: slice, size: int) -> slice:
    return slice(max(0, span.start - 2), min(size, span.stop + 2))


def _line_lengths(boxes: list[Extent]) -> list[int]:
    """Return of each box how many stand on its longest line: one height, small gaps."""
    order = sorted(range(len(boxes)), key=lambda index: boxes[index][2])
    before, after = [1] * len(boxes), [1] * len(boxes)
    pairs = [
        (one, other)
        for at, other in enumerate(order)
        for one in order[:at]
        if _follows(boxes[one], boxes[other])
    ]
    # In the order of their right ends, then from right to left.
    for one, other in pairs:
        before[other] = max(before[other], before[one] + 1)
    for one, other in sorted(pairs, key=lambda pair: -boxes[pair[0]][2]):
        after[one] = max(after[one], after[other] + 1)
    return [left + right - 1 for left, right in zip(before, after, strict=True)]


def _follows(one: Extent, other: Extent) -> bool:
    heights = one[1] - one[0], other[1] - other[0]
    overlap = min(one[1], other[1]) - max(one[0], other[0])
    gap = other[2] - one[3]
    return (
        max(heights) <= 1.6 * min(heights)
        and overlap >= 0.6 * min(heights)
        and -1 <= gap <= 1.5 * max(heights)
    )
