"""What a stored pixel value means: the linear scale of a classic frame.

Three sources, the most physical first:

1. Philips writes a rescale per image to fill the stored range and, privately, the scale slope SS
   that undoes it: ``(SV RS + RI) / (RS SS)`` is the receiver's signal (Chenevert et al., Transl
   Oncol 2014;7:65), and only that compares from slice to slice.
2. RescaleSlope and RescaleIntercept (PS3.3 C.11.1).
3. A single real world value map (PS3.3 C.7.6.16.2.11), where the file has no rescale.
"""

import math
import struct
from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

__all__ = ["SCALE_TAGS", "linear_scale"]

CREATOR = b"Philips MR Imaging DD 001"
GROUP, SCALE_SLOPE = 0x2005, 0x0E
BLOCKS = range(0x10, 0x20)
# Private creator and scale slope of each block.
PHILIPS = tuple((Tag(GROUP, block), Tag(GROUP, block << 8 | SCALE_SLOPE)) for block in BLOCKS)
REAL_WORLD_MAP = Tag("RealWorldValueMappingSequence")

SCALE_TAGS: tuple[BaseTag, ...] = (
    REAL_WORLD_MAP,
    *(tag for pair in PHILIPS for tag in pair),
)
"""Elements that `linear_scale` reads beside RescaleSlope and RescaleIntercept."""


def linear_scale(dataset: Dataset, number: Callable[[str, float], float]) -> tuple[float, float]:
    """Return (slope, intercept) of a classic frame.

    Parameters
    ----------
    dataset : Dataset
        With `SCALE_TAGS`.
    number : callable
        ``number(keyword, default)`` reads a number of the file.
    """
    slope, intercept = number("RescaleSlope", math.nan), number("RescaleIntercept", 0.0)
    if math.isnan(slope):
        return _real_world(dataset) or (1.0, intercept)
    scale_slope = _philips_scale_slope(dataset)
    if scale_slope is None or slope == 0:
        return slope, intercept
    return 1.0 / scale_slope, intercept / (slope * scale_slope)


def _philips_scale_slope(dataset: Dataset) -> float | None:
    private = {tag for tag in dataset.keys() if tag >> 16 == GROUP}  # noqa: SIM118
    for creator, tag in PHILIPS if private else ():
        if creator not in private or tag not in private:
            continue
        name = dataset.get_item(creator).value
        if not isinstance(name, bytes) or name.strip(b"\0 ") != CREATOR:
            continue
        value = _as_number(dataset.get_item(tag))
        if value is not None and math.isfinite(value) and value > 0:
            return value
    return None


def _as_number(element: object) -> float | None:
    """Read FL or, where the VR was lost on the way (implicit, UN), the same four bytes; or DS."""
    raw = getattr(element, "value", None)
    if not isinstance(raw, bytes):
        return None if raw is None else float(raw)
    if getattr(element, "VR", None) in ("DS", "LO"):
        return float(raw.decode("ascii").strip("\0 "))
    if len(raw) != 4:
        return None
    order = "<" if getattr(element, "is_little_endian", True) else ">"
    return float(struct.unpack(order + "f", raw)[0])


def _real_world(dataset: Dataset) -> tuple[float, float] | None:
    maps = dataset.get(REAL_WORLD_MAP)
    items = [] if maps is None or not maps.value else list(maps.value)
    if len(items) != 1 or "RealWorldValueSlope" not in items[0]:
        return None
    return float(items[0].RealWorldValueSlope), float(items[0].get("RealWorldValueIntercept", 0.0))
