"""Means and spreads from noised clamped sums, and the questions that are answered by them.

Axes: V variables.
"""

from collections.abc import Sequence

import numpy as np

from client.cohort import labelled
from client.hospital import Hospital
from client.kept_answers import Told, tell_once
from client.measure import segment_patients, training_values
from client.segment_validation import overlap_table
from privacy.noised_sums import Block, clamped, one_cell
from privacy.policy import PrivacyPolicy
from protocol.arrays import fingerprint
from protocol.payload import Answer, Question
from protocol.public_ranges import public_ranges
from protocol.stats import Moments, OverlapSums
from protocol.stats.sums import FloatArray, IntArray

__all__ = ["measure", "overlap", "overlap_blocks", "told_moments"]

USUAL_MEAN_SD = 0.5
USUAL_VARIANCE = 1 / 9


def told_moments(
    names: Sequence[str],
    ranges: Sequence[tuple[float, float]],
    told: Told,
    block: str,
    num_patients: int,
) -> Moments:
    """Return moments as the noised sums of a `clamped` block have them.

    Parameters
    ----------
    num_patients : int
        Told of the same patients; who is not missing is known.
    """
    missing, unit, square = told.sums[block].reshape(3, len(names))
    absent = np.clip(np.rint(missing), 0, num_patients).astype(np.int64)
    n = num_patients - absent
    mean, variance = _shrunken(unit, square, np.maximum(n, 1), told.noise_sd)
    low, high = np.array(ranges, np.float64).reshape(-1, 2).T
    half = (high - low) / 2
    known = n > 0
    return Moments(
        tuple(names),
        n,
        absent,
        np.where(known, low + (mean + 1) * half, 0.0),
        np.where(known, variance * half**2 * np.maximum(n - 1, 0), 0.0),
    )


def _shrunken(
    unit: FloatArray, square: FloatArray, n: IntArray, noise_sd: float
) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance in [-1, 1] units, drawn to what is usual as far as noise blurs them.

    Usual is the middle of the range, to within half of it, and the variance of a normal variable of
    which the range holds three standard deviations to each side, to within as much again: the mean
    of both, weighted by what each is worth. A spread of 0 or below would look like a constant, and
    a mean at the range's end like an odd hospital.
    """
    blur = noise_sd / n
    own = 1 / (1 + (blur / USUAL_MEAN_SD) ** 2)
    mean = np.clip(own * unit / n, -1, 1)
    own = 1 / (1 + (blur / USUAL_VARIANCE) ** 2)
    usual = (1 - own) * USUAL_VARIANCE
    # Of n values, as Moments count them: n - 1.
    variance = (square / n + 0.5 - mean**2) * n / np.maximum(n - 1, 1)
    return mean, np.clip(own * variance + usual, usual, 1.0)


def _counted(values: np.ndarray, ranges: Sequence[tuple[float, float]]) -> dict[str, Block]:
    everyone = one_cell(np.zeros(len(values), np.int64), 1)
    return {"patients": everyone, "values": clamped(values, ranges)}


def _num_patients(told: Told) -> int:
    return max(int(np.rint(told.sums["patients"][0])), 0)


def measure(hospital: Hospital, question: Question, terms: PrivacyPolicy) -> Answer:
    """Measure as `client.measure.measure` does; what leaves are noised moments of the training
    patients, clamped to public ranges.

    Returns
    -------
    Answer
        ``measurements``: Moments, suppressed after the noise.

    Raises
    ------
    BudgetError, PrivacyError
        If the answer costs too much, or a measurement has no public range.
    """
    study, names = question.study, question.study.prognosis.measurements
    ranges = public_ranges(names, study)
    values = training_values(hospital, question)
    asked = {
        "network": fingerprint(question.arrays or {}),
        "names": list(names),
        "ranges": ranges,
        "holdout": study.holdout.model_dump(),
        "prognosis": study.prognosis.model_dump(mode="json"),
    }
    told = tell_once(hospital, study, terms, "measure", asked, lambda: _counted(values, ranges))
    moments = told_moments(names, ranges, told, "values", _num_patients(told))
    return Answer({"measurements": moments.suppressed(hospital.config.min_cell).to_dict()})


def overlap_blocks(dice: np.ndarray) -> dict[str, Block]:
    """Return what each judged patient adds: 1, and per class and phase the clamped Dice.

    Parameters
    ----------
    dice : float array (N, V)
        In [0, 1]; nan where either mask is empty.
    """
    return _counted(dice, [(0.0, 1.0)] * dice.shape[1])


def overlap(hospital: Hospital, question: Question, terms: PrivacyPolicy) -> Answer:
    """Answer noised moments of Dice by class and phase.

    Distances have no natural upper end, and the volumes' agreement is nine times more sums: both
    would cost more noise than they are worth, and are left empty.

    Returns
    -------
    Answer
        ``overlap`` (OverlapSums), suppressed after the noise.

    Raises
    ------
    BudgetError
        If the answer costs more than the caps leave.
    """
    study, empty = question.study, OverlapSums.empty()
    external = hospital.name in study.hospitals.external
    patients = labelled(hospital.patients if external else hospital.held_out)
    dice = [name for name in empty.moments.names if name.startswith("dice/")]
    asked = {
        "network": fingerprint(question.arrays or {}),
        "segment": study.segment.network.model_dump(mode="json"),
        "preprocessing": study.preprocessing.model_dump(),
        "holdout": study.holdout.model_dump(),
        "external": external,
    }

    def blocks() -> dict[str, Block]:
        if not patients:
            return overlap_blocks(np.zeros((0, len(dice))))
        predicted = segment_patients(hospital, study, question.arrays or {}, patients)
        # A row a patient, as the sums of all no longer tell who adds what; Dice stands first.
        rows = overlap_table(patients, predicted)[..., 0]
        return overlap_blocks(rows.reshape(len(patients), len(dice)))

    told = tell_once(hospital, study, terms, "evaluate.segment", asked, blocks)
    moments = told_moments(dice, [(0.0, 1.0)] * len(dice), told, "values", _num_patients(told))
    filled = _beside(moments, empty.moments)
    sums = OverlapSums(empty.classes, empty.phases, filled)
    return Answer({"overlap": sums.suppressed(hospital.config.min_cell).to_dict()})


def _beside(moments: Moments, empty: Moments) -> Moments:
    """Return the moments followed by those of the variables that were not asked."""

    def joined(name: str) -> np.ndarray:
        told, rest = getattr(moments, name), getattr(empty, name)
        return np.concatenate([told, rest[len(told) :]])

    n, missing = joined("n"), joined("missing")
    return Moments(empty.names, n, missing, joined("mean"), joined("squares"))
