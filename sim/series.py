"""A series as the phantom's scanner stores it, and what it truly is.

Axes: T frames, Z slices, Y rows, X columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.elements import Value
from sim.phantom.planes import PlaneStack

__all__ = ["Series"]


@dataclass(frozen=True)
class Series:
    """A stack of images of one kind.

    Attributes
    ----------
    kind : str
        ``cine``, ``lge``, ``long_axis``, ``localizer`` or ``extra``.
    stored : ndarray
        (T, Z, Y, X) uint16.
    trigger_ms : ndarray
        (T,) delay after the R wave.
    inversion_ms : float
        Inversion time; 0 where there is none.
    sequence, view : str
        What a sorter should call it; of ``client.intake``'s names.
    tags : mapping
        Elements that differ from those of a cine or a late enhancement.
    frame_tags : tuple of mapping
        Elements of each of the T frames.
    part : int
        0, or which part of the series before it this is: the two share a number and a UID.
    """

    kind: str
    name: str
    stored: NDArray[np.uint16]
    stack: PlaneStack
    trigger_ms: NDArray[np.float64]
    inversion_ms: float = 0.0
    sequence: str = ""
    view: str = ""
    tags: Mapping[str, Value] = field(default_factory=dict)
    frame_tags: tuple[Mapping[str, Value], ...] = ()
    part: int = 0
