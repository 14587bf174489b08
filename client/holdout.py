"""Which patients of a training hospital are kept aside for internal validation."""

from collections.abc import Sequence

import numpy as np

from client.cohort import Patient
from protocol.seeds import generator
from protocol.validation_config import HoldOut

__all__ = ["held_out"]


def held_out(
    patients: Sequence[Patient], holdout: HoldOut, study_seed: int, site: str
) -> np.ndarray:
    """Return a mask of the patients in the held-out fold.

    Patients are shuffled within strata (has expert masks, had the event) and dealt to the folds in
    turn, so that each fold has its share of masks and of events even at a small hospital. The split
    depends on the hospital, not on who else takes part: a pooled archive that applies it member by
    member holds out the same patients. Patients whose hospital has fixed beforehand on which side
    they stand (``outcomes.held_out`` of its site.yaml) stand there; only the others are dealt.

    Parameters
    ----------
    patients : sequence of Patient
        In the order of the cohort (by key).
    holdout : HoldOut
        Fold and number of folds.
    study_seed : int
        The study's seed.
    site : str
        Name of the hospital the patients come from.

    Returns
    -------
    numpy.ndarray
        bool (num_patients,), True where held out.
    """
    rng = generator(study_seed, "holdout", site=site)
    order = rng.permutation(len(patients))
    stratum = np.array([2 * (p.labels is not None) + (p.event == 1) for p in patients], dtype=int)
    dealt = order[np.argsort(stratum[order], kind="stable")]
    fold = np.empty(len(patients), dtype=int)
    fold[dealt] = np.arange(len(patients)) % holdout.num_folds
    fixed = [patient.aside for patient in patients]
    dealt_out = fold == holdout.fold
    return np.array(
        [out if side is None else side for side, out in zip(fixed, dealt_out, strict=True)],
        dtype=bool,
    )
