"""The check of one reply; `test_rounds` sends the whole table of hostile ones through it."""

import numpy as np
import pytest

from protocol.arrays import layout
from protocol.errors import PayloadError
from protocol.payload import TrainReply
from server.replies import Expected, read_reply

ARRAYS = {"w": np.ones(4, dtype=np.float32)}
EXPECTED = Expected(layout(ARRAYS), 1024, {"A": 30})


@pytest.mark.parametrize(("num_patients", "num_events"), [(1, 0), (1, 1), (30, 30)])
def test_counts_are_accepted_up_to_their_limits(num_patients: int, num_events: int) -> None:
    records = TrainReply(ARRAYS, num_patients, num_events).to_records()
    reply = read_reply(records, "A", EXPECTED)
    assert (reply.num_patients, reply.num_events) == (num_patients, num_events)


@pytest.mark.parametrize(("num_patients", "num_events"), [(0, 0), (31, 0), (10, 11)])
def test_counts_beyond_their_limits_are_refused(num_patients: int, num_events: int) -> None:
    with pytest.raises(PayloadError, match=r"^The reply of A claims"):
        read_reply(TrainReply(ARRAYS, num_patients, num_events).to_records(), "A", EXPECTED)


def test_the_reply_shares_the_memory_of_its_message() -> None:
    records = TrainReply(ARRAYS, 1, 0).to_records()
    view = read_reply(records, "A", EXPECTED).arrays["w"]
    assert not view.flags.owndata
    assert not view.flags.writeable
