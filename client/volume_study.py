"""One patient whose images are volumes already, before preparation."""

import math
from collections import Counter
from dataclasses import dataclass

from client.masks import Labelled
from client.placement import Stack

__all__ = ["Refused", "VolumeStudy"]

Refused = Counter[tuple[str, str]]
"""(kind, reason) to how often, as in ``client.cohort.Refusal``."""


@dataclass(frozen=True)
class VolumeStudy:
    """One patient's volumes.

    Attributes
    ----------
    cine, lge : Stack
        Slices base to apex; late enhancement if there is any.
    labelled : Labelled or None
        Masks that lie in the same file.
    vendor : str
        As `client.cohort.Patient`.
    field_strength_t : float
        NaN where unknown.
    """

    cine: Stack
    lge: Stack | None = None
    labelled: Labelled | None = None
    vendor: str = "other"
    field_strength_t: float = math.nan
