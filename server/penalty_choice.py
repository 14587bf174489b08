"""The penalty of a Cox regression, chosen by cross-validation over hospitals from sums alone."""

import copy

import numpy as np
import numpy.typing as npt

from protocol.errors import TrainingError
from protocol.stats.cox import CoxSums
from server.cox_questions import CoxQuestions
from server.regression_results import PenaltyCurve
from strategies.cox import Ask
from strategies.cox_penalty import Penalty
from strategies.cox_validation import cross_validate

__all__ = ["choose_penalty", "penalty_path"]

FloatArray = npt.NDArray[np.float64]
NUM_CANDIDATES = 10
# The weakest candidate of a path as a share of the strongest.
WEAKEST = 1e-4
# The strongest ridge of a path, in units of the largest information of a covariate per patient.
STRONGEST_RIDGE = 10.0


def penalty_path(null: CoxSums, l1_ratio: float) -> tuple[float, ...]:
    """Return the candidates of ``auto``, strongest first, from the sums at coefficients of 0.

    The strongest leaves no coefficient (a lasso: ``max |gradient| / (n l1_ratio)``, Simon et al.
    2011, J Stat Softw 39(5), section 2.3) or shrinks each to a tenth or less (a ridge: ten times
    the largest information per patient), whichever is weaker; nine more fall from there to 1e-4 of
    it, evenly on the log scale.
    """
    n = max(null.num_patients, 1)
    tops = []
    if l1_ratio > 0:
        tops.append(float(np.abs(null.gradient).max()) / (n * l1_ratio))
    if l1_ratio < 1:
        ridge = STRONGEST_RIDGE * float(np.diag(null.information).max()) / n
        tops.append(ridge / (1 - l1_ratio))
    path = min(tops) * np.geomspace(1.0, WEAKEST, NUM_CANDIDATES)
    return tuple(float(strength) for strength in path)


def choose_penalty(asking: CoxQuestions) -> PenaltyCurve | None:
    """Set ``asking.penalty`` to the study's, chosen by cross-validation where it is left open.

    Of penalties with equal scores the strongest is taken. None of the fits that led to it is kept:
    the regression itself is fitted to everybody.

    Returns
    -------
    PenaltyCurve or None
        How it was chosen; None where the study writes one penalty.

    Raises
    ------
    HospitalsLeft
        If a hospital no longer answers; choose again without it.
    TrainingError
        If a fold leaves nothing to fit to, or a candidate gives no finite coefficients.
    """
    section = asking.section
    if isinstance(section.penalty, float):
        return None
    null = asking.sums(np.zeros(asking.num_columns))
    strengths = (
        penalty_path(null, section.l1_ratio) if section.penalty == "auto" else section.penalty
    )
    candidates = [Penalty(one, section.l1_ratio) for one in sorted(strengths, reverse=True)]
    folds = len(asking.sites) if section.fold_by == "hospitals" else section.folds
    if folds < 2:
        raise TrainingError(
            "Only one hospital answers the Cox regression, so none can be left out to choose its "
            "penalty; set regression.fold_by to patients."
        )

    def ask_fold(fold: int | None) -> Ask:
        return asking.sums if fold is None else _without(asking, fold)

    try:
        found = cross_validate(
            ask_fold, asking.num_columns, candidates, folds, max_rounds=section.max_rounds
        )
    except TrainingError as error:
        raise TrainingError(
            f"The penalty could not be chosen: without one of {folds} folds, {error.sentence} "
            "(Or set regression.penalty to one number, or regression.fold_by to hospitals.)"
        ) from error
    asking.penalty = found.best
    spread = found.score.std(axis=1, ddof=1) * np.sqrt(folds)
    return PenaltyCurve(
        fold_by=section.fold_by,
        folds=folds,
        strengths=tuple(one.strength for one in candidates),
        scores=tuple(found.total.tolist()),
        standard_errors=tuple(spread.tolist()),
    )


def _without(asking: CoxQuestions, fold: int) -> Ask:
    """Return the questions to everybody outside a fold, counted with those to everybody."""
    part = copy.copy(asking)
    if asking.section.fold_by == "hospitals":
        part.sites = tuple(site for at, site in enumerate(asking.sites) if at != fold)
    else:
        part.fold = fold

    def ask(beta: FloatArray) -> CoxSums:
        asking.rounds += 1
        return part.sums(beta)

    return ask
