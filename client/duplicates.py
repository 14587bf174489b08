"""One person under two numbers, two persons under one: found before they meet an outcome.

Which of the numbers is right cannot be known here, and a patient with another's outcome is worse
than a patient less; so all who are concerned are left out, and the reason says where to look.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from client.intake.frame import Frame
from client.reading import Imaged

__all__ = ["SAME_IMAGES", "SAME_STUDY", "TWO_PERSONS", "doubtful_patients", "without_copies"]

SAME_STUDY = "one study under two patient numbers; keep it under the right one"
SAME_IMAGES = "the same images as another patient number; keep one of them"
TWO_PERSONS = "one patient number with two birth dates or sexes; separate the persons"


def doubtful_patients(frames: Iterable[Frame]) -> dict[str, str]:
    """Return the patient numbers that cannot be trusted, each with the reason."""
    of_study: dict[str, set[str]] = {}
    persons: dict[str, set[bytes]] = {}
    for frame in frames:
        of_study.setdefault(frame.study_uid, set()).add(frame.patient_id)
        if frame.person:
            persons.setdefault(frame.patient_id, set()).add(frame.person)
    doubtful = {who: TWO_PERSONS for who, found in persons.items() if len(found) > 1}
    for patients in of_study.values():
        if len(patients) > 1:
            doubtful.update(dict.fromkeys(patients, SAME_STUDY))
    return doubtful


def without_copies(patients: Sequence[Imaged], refused: Counter[tuple[str, str]]) -> list[Imaged]:
    """Return the patients whose cine no other patient has, counting the others as refused."""
    keys: Mapping[str, str] = {p.key: _digest(p.prepared.cine) for p in patients}
    count = Counter(keys.values())
    alone = [p for p in patients if count[keys[p.key]] == 1]
    refused[("patient", SAME_IMAGES)] += len(patients) - len(alone)
    return alone


def _digest(cine: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(cine).tobytes()).hexdigest()
