"""What a hospital with a privacy policy answers: a closed list, everything else is refused.

The list goes by what is asked of the hospital's app, which the hospital decides, and not by what a
message says of itself. A question that is added to the project is refused here until somebody has
written down how it is noised. Being external changes nothing: its patients are patients.
"""

from collections.abc import Callable, Mapping

from client import private_moments, private_survey
from client.hospital import Hospital
from privacy.policy import PrivacyPolicy
from protocol.errors import PrivacyError
from protocol.payload import Answer, Question

__all__ = ["NOISED", "REFUSED", "private_answer"]

Noised = Callable[[Hospital, Question, PrivacyPolicy], Answer]


def _scores(hospital: Hospital, question: Question, terms: PrivacyPolicy) -> Answer:
    # Imported here: the survey need not wait for torch.
    from client.private_validation import scores

    return scores(hospital, question, terms)


def _prognosis(hospital: Hospital, question: Question, terms: PrivacyPolicy) -> Answer:
    from client.private_validation import validate

    return validate(hospital, question, terms)


NOISED: Mapping[str, Noised] = {
    "query.survey": private_survey.survey,
    "query.measure": private_moments.measure,
    "query.scores": _scores,
    "evaluate.segment": private_moments.overlap,
    "evaluate.prognosis": _prognosis,
}
REFUSED: Mapping[str, str] = {
    "query.cox": "sums over risk sets, in which one patient changes every earlier one",
    "query.risk_sets": "sums over risk sets, in which one patient changes every earlier one",
    "evaluate.regression": "exact counts of pairs, as many of which as there are patients change "
    "with one",
    "evaluate.subgroups": "exact counts of pairs in small groups",
    "evaluate.causes": "exact counts of pairs for each cause",
    "evaluate.weighted": "sums weighted by 1 / G, with which one patient can count fifty times",
    "evaluate.calibration": "new sums in every round of a fit, each at its own price",
    "evaluate.sort": "counts of series, of which one patient has any number",
}
"""Why there is no noise that would make the answer both private and useful."""


def private_answer(
    hospital: Hospital, question: Question, terms: PrivacyPolicy, asked: str
) -> Answer:
    """Answer with noise, from the hospital's budget.

    Parameters
    ----------
    asked : str
        The kind of message, e.g. ``"query.survey"``.

    Raises
    ------
    PrivacyError
        If the question has no noised answer.
    BudgetError
        If the answer costs more than the caps leave.
    """
    if asked not in NOISED:
        reason = REFUSED.get(asked, "what nobody has said how to noise")
        raise PrivacyError(
            f"{hospital.name} answers with noise only and declines '{asked}', which asks for "
            f"{reason}; the study goes on without that answer."
        )
    return NOISED[asked](hospital, question, terms)
