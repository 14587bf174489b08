"""Example images with contours; only the simulator has any to show."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from protocol.errors import PayloadError
from server.report.style import new_figure, svg

__all__ = ["CONTOURS", "Example", "example_figure"]

LV, MYO, RV = 1, 2, 3
# The outline of cavity and myocardium together is the epicardium; the myocardial ring's own outline
# would draw the endocardium twice.
CONTOURS = (
    ("LV endocardium", (LV,), "#E69F00"),
    ("LV epicardium", (LV, MYO), "#56B4E9"),
    ("RV endocardium", (RV,), "#CC79A7"),
)


@dataclass(frozen=True)
class Example:
    """One slice of a phantom.

    Attributes
    ----------
    title : str
        Caption, e.g. ``"harbour, end-diastole, mid"``.
    image : float array (Y, X)
    predicted : int array (Y, X)
        Labels 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity.
    reference : int array (Y, X) or None
    spacing_mm : float
        Pixel spacing in both directions, mm; draws the scale bar.
    """

    title: str
    image: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    reference: npt.NDArray[Any] | None = None
    spacing_mm: float = 1.5


def example_figure(example: Example, index: int) -> Markup:
    """Return the image with predicted (solid) and reference (dotted white) contours.

    Raises
    ------
    PayloadError
        If a label map does not have the image's shape.
    """
    maps = [example.predicted, *([] if example.reference is None else [example.reference])]
    if example.image.ndim != 2 or any(labels.shape != example.image.shape for labels in maps):
        raise PayloadError(
            f"Example '{example.title}' has labels on another grid than its image of shape "
            f"{example.image.shape}; pass one 2-D slice and its labels."
        )
    rows, columns = _window(example.image.shape, maps)
    with new_figure(2.5, 2.5) as figure:
        figure.set_layout_engine(None)  # the image fills its frame
        panel = figure.add_axes((0, 0, 1, 1))
        panel.axis("off")
        image = example.image[rows, columns]
        low, high = np.percentile(image, [1, 99.5])
        panel.imshow(
            image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="bilinear"
        )
        for _, labels, colour in CONTOURS:
            _outline(panel, example.predicted[rows, columns], labels, colour, "solid", 1.6)
            if example.reference is not None:
                _outline(panel, example.reference[rows, columns], labels, "white", "dotted", 1.2)
        _scale_bar(panel, image.shape, example.spacing_mm)
        return svg(figure, f"example-{index}", f"Contours on {example.title}")


def _window(shape: tuple[int, ...], maps: list[npt.NDArray[Any]]) -> tuple[slice, slice]:
    marked = np.any([labels > 0 for labels in maps], axis=0)
    if not marked.any():
        return slice(0, shape[0]), slice(0, shape[1])
    y, x = np.nonzero(marked)
    half = int(0.64 * max(np.ptp(y), np.ptp(x)) + 4)
    sides = []
    for values, length in ((y, shape[0]), (x, shape[1])):
        centre = int(values.min() + values.max()) // 2
        sides.append(slice(max(centre - half, 0), min(centre + half, length)))
    return sides[0], sides[1]


def _outline(
    panel: Any,
    labels: npt.NDArray[Any],
    chosen: tuple[int, ...],
    colour: str,
    dash: str,
    width: float,
) -> None:
    mask = np.isin(labels, chosen).astype(float)
    if 0 < mask.mean() < 1:
        panel.contour(mask, levels=[0.5], colors=[colour], linestyles=[dash], linewidths=[width])


def _scale_bar(panel: Any, shape: tuple[int, ...], spacing_mm: float) -> None:
    length = 20 / spacing_mm
    x, y = 0.05 * shape[1], 0.95 * shape[0]
    panel.plot([x, x + length], [y, y], color="white", lw=2, solid_capstyle="butt")
    panel.text(x, y - 0.02 * shape[0], "20 mm", color="white", fontsize=8, va="bottom")
