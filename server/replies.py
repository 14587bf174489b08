"""What the centre checks before a hospital's model may touch the global one."""

from dataclasses import dataclass, replace

from flwr.app import RecordDict

from protocol.arrays import Arrays, ArraySpec, Layout, check_finite, check_layout
from protocol.compression import DELTA, Codec, apply_change, decode, encoded_size
from protocol.errors import PayloadError
from protocol.payload import TrainReply

__all__ = ["Expected", "read_reply"]


@dataclass(frozen=True)
class Expected:
    """What a valid reply looks like.

    Attributes
    ----------
    layout : Layout
        Names, shapes and dtypes of the model that was sent.
    max_bytes : int
        Largest total size of the arrays, bytes.
    max_patients : dict
        Patients each hospital registered in the survey. A reply cannot claim more, so no
        hospital can buy weight with a number.
    controlled : bool
        A control variate was sent, so that the sum of the learning rates must come back.
    codec : Codec or None
        How the study has hospitals pack the change of the model; None where models come whole.
    """

    layout: Layout
    max_bytes: int
    max_patients: dict[str, int]
    controlled: bool = False
    codec: Codec | None = None


def read_reply(
    records: RecordDict, site: str, expected: Expected, sent: Arrays | None = None
) -> TrainReply:
    """Return a hospital's reply, its model whole, if everything about it is plausible.

    Parameters
    ----------
    sent : Arrays or None
        The model of the request, of which a packed reply is the change.

    Raises
    ------
    PayloadError
        Naming the hospital and the first thing wrong: unknown keys, too many bytes, other names,
        shapes or dtypes, a NaN, no patients or more than were registered, more events than
        patients, a packed change that is none of such a model.
    """
    where = f"The reply of {site}"
    reply = TrainReply.from_records(
        records, where, expected.max_bytes, controlled=expected.controlled
    )
    registered = expected.max_patients[site]
    if not 1 <= reply.num_patients <= registered:
        raise PayloadError(
            f"{where} claims {reply.num_patients} patients, expected 1 to the {registered} "
            "registered in the survey; repeat the survey if its cohort has changed."
        )
    if reply.num_events > reply.num_patients:
        raise PayloadError(
            f"{where} claims {reply.num_events} events in {reply.num_patients} patients; "
            "each patient has at most one, so check its outcomes file."
        )
    if expected.codec is not None and sent is not None:
        arrays = _unpacked(reply.arrays, sent, expected.layout, expected.codec, where)
        reply = replace(reply, arrays=arrays)
    check_layout(reply.arrays, expected.layout, where)
    check_finite(reply.arrays, where)
    return reply


def _unpacked(packed: Arrays, sent: Arrays, model: Layout, codec: Codec, where: str) -> Arrays:
    check_layout(packed, {DELTA: ArraySpec((encoded_size(model, codec),), "uint8")}, where)
    return apply_change(sent, decode(packed[DELTA], model, codec, where))
