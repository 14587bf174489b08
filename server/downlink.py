"""The global model as it travels: whole, or as the packed change of the last one that was sent.

Let ``x_t`` be the model that the centre's rule gives, and ``y_t`` the one the hospitals train in
round ``t``. With ``C`` the decoded payload (`protocol.compression`)::

    y_t = y_{t-1} + C(x_t - y_{t-1}),    x_{t+1} = step(y_t, replies) + (x_t - y_t)

so what is lost in one round is sent in a later one (Tang et al. 2019, ICML, "DoubleSqueeze",
Algorithm 1). Both ends add the same decoded numbers, so ``y_t`` is the same to the bit at each; the
first model, and that of a hospital without ``y_{t-1}``, is sent whole. A checkpoint holds
``x_{t+1}`` and ``y_t``, from which the next payload follows.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from flwr.app import RecordDict

from protocol.arrays import Arrays, fingerprint, layout
from protocol.compression import DELTA, Codec, apply_change, change_of, decode, encode
from protocol.payload import MAX_MODEL_BYTES, Base, TrainRequest
from protocol.records import from_array_record

__all__ = ["Broadcast", "as_sent", "broadcast", "sent_of", "with_owed"]

PREFIX = "sent/"


def as_sent(arrays: Arrays) -> Arrays:
    """Return the last model that was sent under the names it has in a checkpoint's state."""
    return {f"{PREFIX}{name}": array for name, array in arrays.items()}


def sent_of(state: Arrays) -> tuple[Arrays, Arrays]:
    """Return a checkpoint's state as the strategy's own and the last model that was sent."""
    own = {name: array for name, array in state.items() if not name.startswith(PREFIX)}
    sent = {n.removeprefix(PREFIX): a for n, a in state.items() if n.startswith(PREFIX)}
    return own, sent


@dataclass
class Broadcast:
    """One round's request, and in which forms it can be sent.

    Attributes
    ----------
    request : TrainRequest
        With ``y_t`` whole.
    packed : RecordDict or None
        The content for hospitals that hold ``y_{t-1}``; None if the model goes whole to all.
    """

    request: TrainRequest
    packed: RecordDict | None = None

    @cached_property
    def whole(self) -> RecordDict:
        """The content for hospitals that do not; made when the first of them is asked."""
        return self.request.to_records()

    @property
    def model(self) -> Arrays:
        """The model of the round, ``y_t``."""
        return self.request.arrays


def broadcast(request: TrainRequest, sent: Arrays, codec: Codec | None) -> Broadcast:
    """Return a round's request as it travels.

    Parameters
    ----------
    request : TrainRequest
        With ``x_t``.
    sent : Arrays
        ``y_{t-1}``; not looked at in round 1.
    codec : Codec or None
        How models are packed on their way to the hospitals; None sends them whole.
    """
    if codec is None or request.round_index == 1:
        whole = Broadcast(request)
        # The model as a view of the message: there is one copy of both.
        arrays = from_array_record(whole.whole["arrays"], "The global model", MAX_MODEL_BYTES)
        whole.request = replace(request, arrays=arrays)
        return whole
    payload = encode(change_of(request.arrays, sent), codec)
    change = decode(payload, layout(sent), codec, "The global model")
    model = apply_change(sent, change)
    base = Base(request.round_index - 1, fingerprint(sent), fingerprint(model))
    packed = replace(request, arrays={DELTA: payload}, base=base).to_records()
    return Broadcast(replace(request, arrays=model), packed)


def with_owed(new: Arrays, wanted: Arrays, sent: Arrays) -> Arrays:
    """Return ``step(y_t) + (x_t - y_t)``, ``new`` being the first of them."""
    return {
        name: np.asarray(array + (wanted[name] - sent[name])) if array.dtype.kind == "f" else array
        for name, array in new.items()
    }
