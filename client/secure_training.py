"""A training round's reply as a masked vector, and the checks that the centre can no longer make.

The centre sees a sum; a number that is not finite or out of range would ruin it unseen. So layout,
finiteness, range and weight are checked here, where the update still is one hospital's.
"""

from collections.abc import Callable

from flwr.app import RecordDict

from client.hospital import Hospital
from client.secure_answers import counted_exactly
from client.secure_rounds import SecureRound, enter
from privacy.secure_sum.packing import Packing
from privacy.secure_sum.quantise import FixedPoint, WordArray
from privacy.secure_sum.statistics import pack_statistics
from privacy.updates import PrivateUpdates
from protocol.arrays import check_finite, check_layout, fingerprint, layout
from protocol.errors import PayloadError, PrivacyError
from protocol.payload import TrainReply, TrainRequest
from protocol.stats.vectors import same_labels
from protocol.summed.gradient import no_gradient, to_gradient

__all__ = ["GRADIENT", "answer_masked", "enter_training", "masked_gradient", "masked_reply"]

GRADIENT = "train.gradient"


def enter_training(hospital: Hospital, message_type: str, request: TrainRequest) -> SecureRound:
    """Check a secure training round before anything is trained.

    Raises
    ------
    PrivacyError
        As `client.secure_rounds.enter`, or if the study's rule looks at single updates.
    """
    if message_type == GRADIENT:
        share = {"agreed": request.agreed, "model": fingerprint(request.arrays)}
        question = f"{message_type}/{request.round_index}"
        return enter(hospital.directory, request.study, message_type, share, question)
    if request.control is not None:
        raise PrivacyError(
            "SCAFFOLD's control variates are updates of single hospitals, which a secure sum does "
            "not show; choose another strategy."
        )
    asked = {
        "agreed": request.agreed,
        "stage": request.stage,
        "round": request.round_index,
        # Unlike models would give the centre a sum in which only one hospital's update is not zero.
        "model": fingerprint(request.arrays),
    }
    question = f"{request.stage}/{request.round_index}"
    return enter(hospital.directory, request.study, message_type, asked, question)


def answer_masked(
    hospital: Hospital,
    message_type: str,
    request: TrainRequest,
    function: Callable[[Hospital, TrainRequest], TrainReply],
) -> tuple[TrainReply, RecordDict]:
    """Do a round's work and return its reply and what of it leaves.

    Raises
    ------
    PrivacyError, PayloadError
        As `enter_training`, `masked_gradient` and `masked_reply`.
    """
    secure = enter_training(hospital, message_type, request)
    if message_type == GRADIENT:
        reply = function(counted_exactly(hospital, request.study, message_type), request)
        return reply, masked_gradient(secure, request, reply)
    reply = function(hospital, request)
    return reply, masked_reply(secure, request, reply)


def masked_gradient(secure: SecureRound, request: TrainRequest, reply: TrainReply) -> RecordDict:
    """Return a hospital's share of the gradient of a pooled likelihood as its masked vector.

    Raises
    ------
    PrivacyError
        If a number is out of the sum's range.
    PayloadError
        If the reply is not of the network that was sent, or not finite.
    """
    section, where = request.study.secure_aggregation, "This hospital's gradient"
    if section is None:
        raise PrivacyError("This study has no secure_aggregation; send no masked gradient.")
    check_finite(reply.arrays, where)
    blank = no_gradient(layout(request.arrays))
    loss = reply.metrics.get("loss", 0.0) * reply.num_events
    share = to_gradient(reply.arrays, reply.num_patients, reply.num_events, loss)
    if not same_labels(share, blank):
        raise PayloadError(f"{where} is of another network than the one that was sent.")
    tree = {"gradient": share}
    words = pack_statistics(tree, secure.num_hospitals, section.sum_step_bits)
    return secure.mask(words).to_records()


def masked_reply(secure: SecureRound, request: TrainRequest, reply: TrainReply) -> RecordDict:
    """Return a hospital's reply as its masked vector.

    Raises
    ------
    PrivacyError
        If a number is out of the sum's range or the weight above the cap.
    PayloadError
        If the reply is not of the model that was sent, or not finite.
    """
    where = "This hospital's update"
    check_layout(reply.arrays, layout(request.arrays), where)
    check_finite(reply.arrays, where)
    if reply.num_events > reply.num_patients:
        raise PayloadError(f"{where} counts more events than patients; check the outcomes file.")
    return secure.mask(_words(secure, request, reply)).to_records()


def _words(secure: SecureRound, request: TrainRequest, reply: TrainReply) -> WordArray:
    section = request.study.secure_aggregation
    if section is None:
        raise PrivacyError("This study has no secure_aggregation; send no masked update.")
    n = secure.num_hospitals
    packing = Packing(layout(request.arrays), section.step_bits, n)
    change = packing.flat(reply.arrays, request.arrays)
    if section.updates is not None:
        clip_norm = secure.call.clip_norm or section.updates.clip_norm
        if section.updates.adaptive is None:
            clip_norm = section.updates.clip_norm
        private = PrivateUpdates(
            section.updates,
            FixedPoint(section.step_bits, 32),
            n,
            secure.keys.threshold,
            packing.num_parameters,
            clip_norm,
        )
        cap = section.updates.weight_cap
        return private.pack(change, 1.0 if cap is None else min(reply.num_patients / cap, 1.0))
    weight_by = getattr(request.study, request.stage).strategy.weight_by
    weight = reply.num_patients if weight_by == "patients" else reply.num_events
    counts = {
        "weight": weight,
        "num_patients": reply.num_patients,
        "num_events": reply.num_events,
    }
    return packing.pack(change, weight / secure.call.weight_cap, counts, reply.metrics)
