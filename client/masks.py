"""Expert masks: from the hospital's own numbers to canonical labels, on the frames drawn on.

A wrong label convention (ACDC writes 1 RV, 2 MYO, 3 LV; M&Ms the reverse) trains without complaint
and ruins every hospital's model, so it is found here from the anatomy: myocardium encloses the left
ventricle and nothing else.

Axes: P phases (ED, ES), Z slices base to apex, Y rows, X columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from client.intake.frame import Frame
from protocol.errors import DataError
from shared_models.labels import BACKGROUND, CLASS_NAMES, LV, MYO, RV

__all__ = ["Labelled", "enclosure", "likely_convention", "map_labels", "pick_phases"]

MIN_ENCLOSURE = 0.6


@dataclass(frozen=True)
class Labelled:
    """Expert labels of ED and ES.

    Attributes
    ----------
    labels : ndarray
        uint8 (2, Z, Y, X), canonical.
    phases : tuple of int
        The cine's phases (ED, ES) that they were drawn on.
    drawn_on : mapping of (int, int) to Frame
        By (0 ED or 1 ES, acquired slice): frames that the expert drew on where the cine shows
        another, or a mixture of two, at that phase.
    partial : bool
        A class was not drawn, so that its absence means nothing.
    notes : tuple of str
        What was left out of the masks, and why.
    """

    labels: np.ndarray
    phases: tuple[int, int]
    drawn_on: Mapping[tuple[int, int], Frame] = field(default_factory=dict)
    partial: bool = False
    notes: tuple[str, ...] = ()


def map_labels(values: np.ndarray, convention: Mapping[int, str]) -> np.ndarray:
    """Return canonical labels for an array of the hospital's values.

    Parameters
    ----------
    values : ndarray of int
        0 is background.
    convention : mapping of int to str
        As in ``site.yaml``: value to LV, MYO or RV.

    Raises
    ------
    DataError
        If a value is neither 0 nor in the convention.
    """
    canonical = {name: label for label, name in CLASS_NAMES.items()}
    found = {int(value) for value in np.unique(values)}
    unknown = sorted(found - set(convention) - {BACKGROUND})
    if unknown:
        raise DataError("mask holds values that masks.labels in site.yaml does not map")
    labels = np.zeros(values.shape, dtype=np.uint8)
    for value, name in convention.items():
        labels[values == value] = canonical[name]
    return labels


def pick_phases(by_phase: Mapping[int, np.ndarray]) -> Labelled:
    """Choose ED and ES among the phases that carry labels: the largest and smallest cavity.

    Parameters
    ----------
    by_phase : mapping of int to ndarray
        Canonical labels (Z, Y, X) by cine phase.

    Raises
    ------
    DataError
        If fewer than two phases carry labels, or their cavities are of one size.
    """
    slices = {t: int(labels.any(axis=(1, 2)).sum()) for t, labels in by_phase.items()}
    # A phase of which an expert drew a slice or two is no volume, and would be the smallest.
    enough = max(1, max(slices.values(), default=0) / 3)
    volumes = {t: int((by_phase[t] == LV).sum()) for t, drawn in slices.items() if drawn >= enough}
    if len(volumes) < 2:
        raise DataError("mask at fewer than two cardiac phases")
    diastole = max(volumes, key=lambda t: (volumes[t], -t))
    systole = min(volumes, key=lambda t: (volumes[t], t))
    if volumes[diastole] == volumes[systole]:
        raise DataError("mask with the same left ventricle at every phase")
    return Labelled(np.stack([by_phase[diastole], by_phase[systole]]), (diastole, systole))


def _contacts(labels: np.ndarray) -> np.ndarray:
    """Count in-plane neighbour pairs by label: int64 (4, 4), symmetric."""
    table = np.zeros((4, 4), dtype=np.int64)
    for one, other in (
        (labels[..., :-1, :], labels[..., 1:, :]),
        (labels[..., :, :-1], labels[..., :, 1:]),
    ):
        pairs = np.bincount((one.ravel().astype(np.int64) * 4 + other.ravel()), minlength=16)
        table += pairs.reshape(4, 4)
    return table + table.T


def _enclosure(contacts: np.ndarray, lv: int, myo: int, rv: int) -> float:
    outline = contacts[lv].sum() - contacts[lv, lv]
    wall = contacts[myo].sum() - contacts[myo, myo]
    if outline == 0 or wall == 0 or contacts[rv].sum() == 0:
        return 0.0
    # The wall is between the cavities, so the cavities all but never touch.
    return float((contacts[lv, myo] - contacts[lv, rv]) / outline)


def enclosure(labels: np.ndarray) -> float:
    """Return how well the myocardium encloses the left ventricle, in [-1, 1]; higher is better.

    The share of the LV outline that touches MYO, less the share that touches RV. On 80 ACDC
    patients it is at least .99, and at most .41 under the five wrong assignments of the names.
    """
    return _enclosure(_contacts(labels), LV, MYO, RV)


def likely_convention(labels: np.ndarray) -> dict[int, int] | None:
    """Return the relabelling under which the anatomy is right; ``None`` if it is right already.

    Raises
    ------
    DataError
        If no assignment of the three classes is anatomically possible.
    """
    contacts = _contacts(labels)
    if _enclosure(contacts, LV, MYO, RV) >= MIN_ENCLOSURE:
        return None
    scores = {order: _enclosure(contacts, *order) for order in permutations((LV, MYO, RV))}
    best = max(scores, key=lambda order: scores[order])
    if scores[best] < MIN_ENCLOSURE:
        raise DataError("mask in which no class encloses another as myocardium does")
    return dict(zip(best, (LV, MYO, RV), strict=True))
