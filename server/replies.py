"""What the centre checks before a hospital's model may touch the global one."""

from dataclasses import dataclass

from flwr.app import RecordDict

from protocol.arrays import Layout, check_finite, check_layout
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
    """

    layout: Layout
    max_bytes: int
    max_patients: dict[str, int]
    controlled: bool = False


def read_reply(records: RecordDict, site: str, expected: Expected) -> TrainReply:
    """Return a hospital's reply if everything about it is plausible.

    Raises
    ------
    PayloadError
        Naming the hospital and the first thing wrong: unknown keys, too many bytes, other names,
        shapes or dtypes, a NaN, no patients or more than were registered, more events than
        patients.
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
    check_layout(reply.arrays, expected.layout, where)
    check_finite(reply.arrays, where)
    return reply
