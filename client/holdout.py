"""Which patients of a training hospital are kept aside for internal validation."""

import hashlib
from collections.abc import Sequence

import numpy as np

from client.cohort import Patient
from protocol.seeds import generator
from protocol.validation_config import HoldOut

__all__ = ["held_out"]


def held_out(
    patients: Sequence[Patient],
    holdout: HoldOut,
    study_seed: int,
    site: str,
    *,
    each_alone: bool = False,
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
    each_alone : bool
        Deal every patient by a hash of the pseudonym, without strata and whoever the others are.
        Differential privacy needs it: dealt in turn, one patient more moves half of the others to
        another fold, and every claim about the training patients is void.

    Returns
    -------
    numpy.ndarray
        bool (num_patients,), True where held out.
    """
    fold = _alone if each_alone else _in_turn
    dealt_out = fold(patients, holdout.num_folds, study_seed, site) == holdout.fold
    fixed = [patient.aside for patient in patients]
    return np.array(
        [out if side is None else side for side, out in zip(fixed, dealt_out, strict=True)],
        dtype=bool,
    )


def _alone(patients: Sequence[Patient], num_folds: int, study_seed: int, site: str) -> np.ndarray:
    digests = (
        hashlib.sha256(f"{study_seed}/holdout/{site}/{patient.key}".encode()).digest()
        for patient in patients
    )
    return np.array([int.from_bytes(digest, "big") % num_folds for digest in digests], dtype=int)


def _in_turn(patients: Sequence[Patient], num_folds: int, study_seed: int, site: str) -> np.ndarray:
    rng = generator(study_seed, "holdout", site=site)
    order = rng.permutation(len(patients))
    stratum = np.array([2 * (p.labels is not None) + (p.event == 1) for p in patients], dtype=int)
    dealt = order[np.argsort(stratum[order], kind="stable")]
    fold = np.empty(len(patients), dtype=int)
    fold[dealt] = np.arange(len(patients)) % num_folds
    return fold
