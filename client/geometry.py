"""Orientation and resampling of stacks. Axes: Z slices, Y rows, X columns; affines to LPS mm."""

import numpy as np
from scipy.ndimage import map_coordinates

__all__ = [
    "apply_turn",
    "crop_affine",
    "resample_labels",
    "resample_plane",
    "resample_rows_columns",
    "turn_upright",
    "undo_turn",
]

# From the right ventricle to the left one inside the short-axis plane, measured on four patients of
# two vendors: left, posterior and a little superior.
RIGHT_TO_LEFT_VENTRICLE = np.array([0.80, 0.55, 0.20])


def turn_upright(
    affine: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, tuple[bool, bool, bool]]:
    """Find the quarter turn or flip after which columns run to the patient's left and rows down.

    Stacks of one scanner come with rows and columns along whatever the planner chose; a network
    should not have to learn that. The right ventricle is left of the left one afterwards. Slices
    must run base to apex; the view is then from the apex, whichever way the scanner counted.

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        (column, row, slice, 1) to LPS mm.
    shape : tuple of int
        Rows, columns.

    Returns
    -------
    affine : ndarray, shape (4, 4)
        Of the turned stack.
    turn : tuple of bool
        (swap rows and columns, then flip rows, then flip columns), for `apply_turn`.
    """
    best_score, best = -np.inf, (affine, (False, False, False))
    for swap in (False, True):
        for flip_rows in (False, True):
            for flip_columns in (False, True):
                turn = (swap, flip_rows, flip_columns)
                turned = affine @ _turn_matrix(turn, shape)
                x, y, z = (turned[:3, i] / np.linalg.norm(turned[:3, i]) for i in range(3))
                # Seen from the apex, x cross y points to the base, against the slice direction.
                handed = np.cross(x, y) @ z < 0
                score = float(x @ RIGHT_TO_LEFT_VENTRICLE) if handed else -np.inf
                if score > best_score:
                    best_score, best = score, (turned, turn)
    return best


def _turn_matrix(turn: tuple[bool, bool, bool], shape: tuple[int, int]) -> np.ndarray:
    """Return the matrix from (column, row, slice, 1) of the turned stack to the original one."""
    swap, flip_rows, flip_columns = turn
    rows, cols = shape if not swap else shape[::-1]
    flip = np.eye(4)
    if flip_columns:
        flip[0, 0], flip[0, 3] = -1.0, cols - 1
    if flip_rows:
        flip[1, 1], flip[1, 3] = -1.0, rows - 1
    exchange = np.eye(4)[[1, 0, 2, 3]] if swap else np.eye(4)
    return exchange @ flip


def apply_turn(stack: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    """Turn the last two axes (Y, X) of a stack as found by `turn_upright`."""
    swap, flip_rows, flip_columns = turn
    if swap:
        stack = np.swapaxes(stack, -1, -2)
    return stack[..., :: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def undo_turn(stack: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    """Turn the last two axes (Y, X) back: ``undo_turn(apply_turn(s, t), t)`` is ``s``."""
    swap, flip_rows, flip_columns = turn
    stack = stack[..., :: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.swapaxes(stack, -1, -2) if swap else stack


def _taps(count: int, positions: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Interpolation taps: source indices (num_taps, n) and weights float32 of the same shape.

    Linear, and widened to the step when shrinking, which keeps a 0.7 mm image from aliasing on a
    1.5 mm grid. Positions outside the image have weight 0. Taps rather than a matrix product: BLAS
    would sum in an order that depends on its threads.
    """
    width = max(1.0, step)
    first = np.ceil(positions - width).astype(int)
    taps = first + np.arange(int(np.floor(2 * width)) + 1)[:, None]
    weights = np.clip(1.0 - np.abs(positions - taps) / width, 0.0, None)
    weights[(taps < 0) | (taps >= count)] = 0.0
    weights[:, (positions < -0.5) | (positions > count - 0.5)] = 0.0
    total = weights.sum(axis=0)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return np.clip(taps, 0, count - 1), weights.astype(np.float32)


def _grid(centre_px: float, step_px: float, size: int) -> np.ndarray:
    return centre_px + (np.arange(size) - (size - 1) / 2) * step_px


def resample_rows_columns(
    stack: np.ndarray,
    centre_px: tuple[float, float],
    step_px: tuple[float, float],
    size: int | tuple[int, int],
) -> np.ndarray:
    """Cut ``size`` pixels around a centre, at ``step_px`` source pixels a pixel.

    With a step of 1 and a grid of whole source pixels, values are copied as they are.

    Parameters
    ----------
    stack : ndarray, shape (..., Y, X)
    centre_px, step_px : tuple of float
        (row, column) in source pixels.
    size : int or tuple of int
        Side of a square, or (rows, columns).

    Returns
    -------
    ndarray
        float32 (..., rows, columns); 0 outside the source.
    """
    rows, cols = stack.shape[-2:]
    height, width = (size, size) if isinstance(size, int) else size
    row_taps, row_weights = _taps(rows, _grid(centre_px[0], step_px[0], height), step_px[0])
    col_taps, col_weights = _taps(cols, _grid(centre_px[1], step_px[1], width), step_px[1])
    short = np.zeros((*stack.shape[:-2], height, cols), dtype=np.float32)
    for tap, weight in zip(row_taps, row_weights, strict=True):
        short += stack[..., tap, :] * weight[:, None]
    out = np.zeros((*stack.shape[:-2], height, width), dtype=np.float32)
    for tap, weight in zip(col_taps, col_weights, strict=True):
        out += short[..., tap] * weight
    return out


def resample_labels(
    labels: np.ndarray,
    num_classes: int,
    centre_px: tuple[float, float],
    step_px: tuple[float, float],
    size: int | tuple[int, int],
) -> np.ndarray:
    """Resample a label stack (..., Y, X) by the largest resampled membership; uint8."""
    members = np.stack(
        [
            resample_rows_columns(labels == label, centre_px, step_px, size)
            for label in range(1, num_classes)
        ]
    )
    background = 1.0 - members.sum(axis=0, keepdims=True)
    return np.concatenate([background, members]).argmax(axis=0).astype(np.uint8)


def crop_affine(
    affine: np.ndarray,
    centre_px: tuple[float, float],
    step_px: tuple[float, float],
    size: int,
) -> np.ndarray:
    """Return the affine of the square that `resample_rows_columns` cuts."""
    crop = np.eye(4)
    crop[0, 0], crop[1, 1] = step_px[1], step_px[0]
    crop[0, 3] = centre_px[1] - (size - 1) / 2 * step_px[1]
    crop[1, 3] = centre_px[0] - (size - 1) / 2 * step_px[0]
    return affine @ crop


def resample_plane(image: np.ndarray, to_image: np.ndarray, size: int) -> np.ndarray:
    """Sample an image (Y, X) on a square grid that may be rotated against it.

    Parameters
    ----------
    to_image : ndarray, shape (2, 3)
        (column, row, 1) of the grid to (row, column) of the image.

    Returns
    -------
    ndarray
        float32 (size, size); 0 outside the image.
    """
    (row_by_col, row_by_row, row_0), (col_by_col, col_by_row, col_0) = to_image
    middle = (size - 1) / 2
    if max(abs(row_by_col), abs(col_by_row)) * size < 0.25 and min(row_by_row, col_by_col) > 0:
        centre = (row_0 + row_by_row * middle, col_0 + col_by_col * middle)
        return resample_rows_columns(image, centre, (row_by_row, col_by_col), size)
    rows, cols = np.mgrid[:size, :size]
    coordinates = (
        row_by_col * cols + row_by_row * rows + row_0,
        col_by_col * cols + col_by_row * rows + col_0,
    )
    return map_coordinates(image, coordinates, output=np.float32, order=1, cval=0.0)
