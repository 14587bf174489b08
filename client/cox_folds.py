"""The hospital's half of a cross-validation within hospitals: everybody but one fold.

What a reader learns. Sums of everybody less sums without a fold are those of the fold, so each
fold is a publication: `client.survival_table.assign_folds` makes none of fewer than ``min_cell``
patients or events, and puts a hospital that is too small for folds into one of them as a whole. The
draw comes from the hospital's secret and is the same in every question of the study.
"""

from client.hospital import Hospital
from client.survival_table import SurvivalTable, assign_folds
from protocol.errors import PayloadError
from protocol.payload import Question

__all__ = ["without_fold"]


def without_fold(hospital: Hospital, question: Question, table: SurvivalTable) -> SurvivalTable:
    """Return the patients outside the fold that ``agreed["cox"]["fold"]`` names; None: everybody.

    Raises
    ------
    PayloadError
        If there is no such fold, or the study asks for folds of what would lay patients open.
    """
    fold, section = question.agreed["cox"].get("fold"), question.study.regression
    if fold is None:
        return table
    if section.form == "grid" or type(fold) is not int or not 0 <= fold < section.folds:
        raise PayloadError(
            f"The centre asked for a fold that is none of {section.folds} folds of a "
            "site-stratified regression; both ends must run the same version."
        )
    rng = hospital.private_generator(f"{question.study.name}/penalty")
    folds = assign_folds(table, section.folds, rng, min_cell=hospital.config.min_cell)
    return table.take(folds != fold)
