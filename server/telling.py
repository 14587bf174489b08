"""How a statistic is asked: of each hospital apart, or of those of one role as a secure sum.

An answer comes under the name of who tells it. Without secure sums that is the hospital; with them
it is all training, internal or external hospitals together, and their sum is a document like a
hospital's own. Where a role has fewer hospitals than a sum needs each is asked plainly, and answers
if its own settings permit it.
"""

from collections.abc import Iterable
from typing import Any

from protocol import audit
from protocol.arrays import Arrays
from protocol.errors import PrivacyError
from protocol.secure_groups import TOGETHER, covers_everything, members, tellers
from server.centre import Centre
from server.secure_questions import SecureQuestions
from server.summed_documents import document

__all__ = ["Answers", "answered_by", "ask_all"]

Answers = dict[str, dict[str, Any]]


def ask_all(
    centre: Centre,
    message_type: str,
    sites: Iterable[str],
    agreed: dict[str, Any],
    arrays: Arrays | None = None,
    *,
    may_decline: bool = False,
) -> Answers:
    """Ask a question and return the documents by who tells them, see `tellers`.

    Parameters
    ----------
    may_decline : bool
        As in `Centre.answers`. Who is asked plainly in a study of secure sums always may.

    Raises
    ------
    QuorumError
        If fewer than the quorum answered.
    """
    study = centre.study
    names = tellers(study, sites)
    if not covers_everything(study):
        return centre.answers(message_type, names, agreed, arrays, may_decline=may_decline)
    answers: Answers = {}
    for group, name in TOGETHER.items():
        if name in names:
            asking = _asking(centre, message_type, name, members(study, group))
            told = asking.document(agreed, arrays, may_decline)
            answers |= {} if told is None else {name: told}
    plain = [name for name in names if name not in TOGETHER.values()]
    if plain:
        answers |= centre.answers(message_type, plain, agreed, arrays, may_decline=True)
    return {name: answers[name] for name in names if name in answers}


def answered_by(centre: Centre, message_type: str, teller: str) -> tuple[str, ...]:
    """Return the hospitals whose answers are in what was told last."""
    asking = centre.sums.get((message_type, teller))
    return (teller,) if asking is None else asking.hospitals


class _Asking:
    """One question, asked once or often, of one group."""

    def __init__(self, centre: Centre, message_type: str, sites: tuple[str, ...]) -> None:
        self.centre, self.message_type = centre, message_type
        self.questions = SecureQuestions(centre, message_type, sites)
        self.hospitals: tuple[str, ...] = ()

    def document(
        self, agreed: dict[str, Any], arrays: Arrays | None, may_decline: bool
    ) -> dict[str, Any] | None:
        try:
            summed = self.questions.ask(agreed, arrays, may_decline=may_decline)
        except PrivacyError as error:
            if not may_decline:
                raise
            audit.append(self.centre.audit_log, self.message_type, {"outcome": error.code})
            return None
        self.hospitals = summed.hospitals
        return document(self.message_type, self.centre.study, agreed, summed)


def _asking(centre: Centre, message_type: str, name: str, sites: tuple[str, ...]) -> _Asking:
    key = (message_type, name)
    if key not in centre.sums:
        centre.sums[key] = _Asking(centre, message_type, sites)
    found: _Asking = centre.sums[key]
    return found
