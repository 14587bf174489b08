"""A statistic's answer as a masked vector: the sums of the exact Cox regression, and their like.

Any answer that is a mergeable sum goes the same way: one line in `KINDS`, one in
`protocol.stats.vectors.LABELS` saying what is not added, and its message type in
`client.secure_settings.MASKED`.
"""

from flwr.app import RecordDict

from client.hospital import Hospital
from client.secure_rounds import SecureRound, enter
from privacy.secure_sum.quantise import FixedPoint
from protocol.documents import digest
from protocol.errors import PrivacyError
from protocol.payload import Answer, Question
from protocol.stats.cox import CoxSums
from protocol.stats.cox_residuals import CoxResiduals
from protocol.stats.sums import Sums
from protocol.stats.vectors import to_vector

__all__ = ["KINDS", "enter_question", "masked_answer"]

# What an answer's key holds.
KINDS: dict[str, type[Sums]] = {"sums": CoxSums, "residuals": CoxResiduals}


def enter_question(hospital: Hospital, message_type: str, question: Question) -> SecureRound:
    """Check a question that is answered by a secure sum before anything is computed.

    Raises
    ------
    PrivacyError
        As `client.secure_rounds.enter`.
    """
    asked = {"agreed": question.agreed, "topic": question.topic}
    plain = {key: value for key, value in question.agreed.items() if key != "secure"}
    identity = digest({"agreed": plain, "topic": question.topic})
    return enter(hospital.directory, question.study, message_type, asked, identity)


def masked_answer(secure: SecureRound, question: Question, answer: Answer) -> RecordDict:
    """Return an answer of one mergeable statistic as its masked vector.

    Raises
    ------
    PrivacyError
        If the answer is something else, or a number is out of the sum's range.
    """
    section, keys = question.study.secure_aggregation, list(answer.document)
    if section is None or len(keys) != 1 or keys[0] not in KINDS:
        raise PrivacyError(
            "The answer to this question is no sum that can be masked, and this study sends "
            "nothing else of a regression; ask for sums or residuals."
        )
    sums = KINDS[keys[0]].from_dict(answer.document[keys[0]])
    grid = FixedPoint(section.sum_step_bits, 64)
    vector = grid.encode(to_vector(sums), secure.num_hospitals, "The statistic")
    return secure.mask(vector).to_records()
