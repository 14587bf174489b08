"""What a stage of training keeps of each of its rounds."""

from typing import Literal, NotRequired, TypedDict

import numpy as np

from protocol.arrays import Arrays
from server.secure_training import Together

__all__ = ["RoundEntry", "SiteEntry", "Stage", "change_norm"]

Stage = Literal["sort", "segment", "prognosis"]


class SiteEntry(TypedDict):
    """What one hospital contributed to a round."""

    num_patients: int
    num_events: int
    weight: float
    metrics: dict[str, float]


class RoundEntry(TypedDict):
    """One round in the history (JSON values only).

    ``excluded`` maps a hospital to the ``code`` and ``sentence`` of why its reply was left out;
    ``update_norm`` is the Euclidean norm of the change of the global model. Where only a sum was
    seen, ``together`` is what is known of it, and a hospital's entry holds its even share of the
    weight and nothing else. ``bytes_down`` and ``bytes_up`` are of all hospitals together.
    """

    stage: str
    round: int
    seconds: float
    sites: dict[str, SiteEntry]
    excluded: dict[str, dict[str, str]]
    update_norm: float
    fingerprint: str
    bytes_down: NotRequired[int]
    bytes_up: NotRequired[int]
    together: NotRequired[Together]


def change_norm(new: Arrays, old: Arrays) -> float:
    """Return the Euclidean norm of ``new - old``, over all arrays together."""
    squares = 0.0
    for name, array in new.items():
        difference = np.asarray(array - old[name])
        squares += float(np.square(difference, out=difference).sum(dtype=np.float64))
    return float(np.sqrt(squares))
