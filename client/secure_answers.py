"""A statistic's answer as a masked vector.

Whatever a hospital answers goes the same way: the question says which statistics the answer holds
(`protocol.summed`), each is brought into a form that adds, and what the answer does not hold counts
as nobody's. Under a mask the hospital counts exactly: suppression is done where the total is known,
by the number that the study states and that this hospital's own must not exceed. The stratified Cox
regression keeps the hospital's own minimum, below which it has no likelihood worth adding.
"""

from dataclasses import replace

from flwr.app import RecordDict

from client.hospital import Hospital
from client.secure_rounds import SecureRound, enter
from client.secure_survey import survey_document
from privacy.secure_sum.statistics import pack_statistics
from protocol.arrays import fingerprint
from protocol.config import Study
from protocol.documents import digest
from protocol.errors import PrivacyError
from protocol.payload import Answer, Question
from protocol.secure_groups import role_in
from protocol.stats.additive import additive
from protocol.stats.sums import Sums
from protocol.summed import leaves, nobody, with_leaves
from protocol.summed.tree import at

__all__ = ["counted_exactly", "enter_question", "masked_answer"]


def enter_question(hospital: Hospital, message_type: str, question: Question) -> SecureRound:
    """Check a question that is answered by a secure sum before anything is computed.

    Raises
    ------
    PrivacyError
        As `client.secure_rounds.enter`, or if the study tells totals of fewer patients than this
        hospital tells of its own.
    """
    study, own = question.study, hospital.config.min_cell
    told = study.secure_aggregation.min_cell if study.secure_aggregation is not None else 0
    if not _keeps_minimum(study, message_type) and told < own:
        raise PrivacyError(
            f"{hospital.name} tells no count below {own} patients, and the study withholds totals "
            f"below {told}; raise secure_aggregation.min_cell in the study."
        )
    model = None if question.arrays is None else fingerprint(question.arrays)
    asked = {"agreed": question.agreed, "topic": question.topic, "model": model}
    plain = {key: value for key, value in question.agreed.items() if key != "secure"}
    identity = digest({"agreed": plain, "topic": question.topic, "model": model})
    return enter(hospital.directory, study, message_type, asked, identity)


def _keeps_minimum(study: Study, message_type: str) -> bool:
    return message_type == "query.cox" and study.regression.form == "stratified"


def counted_exactly(hospital: Hospital, study: Study, message_type: str) -> Hospital:
    """Return the hospital as it answers under a mask: no count is too small."""
    if _keeps_minimum(study, message_type):
        return hospital
    return replace(hospital, config=hospital.config.model_copy(update={"min_cell": 1}))


def masked_answer(
    secure: SecureRound, hospital: Hospital, message_type: str, question: Question, answer: Answer
) -> RecordDict:
    """Return an answer as its masked vector.

    Raises
    ------
    PayloadError
        If the answer holds other statistics than the question asked for.
    PrivacyError
        If a number is out of the sum's range, or the study has no secure sums.
    """
    study, section = question.study, question.study.secure_aggregation
    if section is None:
        raise PrivacyError("This study has no secure_aggregation; send no masked answer.")
    role, has_model = role_in(study, hospital.name), question.arrays is not None
    blank = nobody(message_type, study, question.agreed, role, has_model)
    document = answer.document
    if message_type == "query.survey":
        document = survey_document(document)
    found: list[Sums] = []
    for path, leaf in leaves(blank):
        told = at(document, path)
        found.append(leaf if told is None else additive(leaf, told))
    words = pack_statistics(with_leaves(blank, found), secure.num_hospitals, section.sum_step_bits)
    return secure.mask(words).to_records()
