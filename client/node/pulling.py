"""A message that its run's end interrupts is forgotten as a whole.

Flower's node makes a task, stores the message and then pulls the message's arrays. When the run is
stopped in between (a server app was killed, and the run is taken up as a new one), it forgets only
to go on: task and message stay, whoever takes the task waits for arrays that never come, and the
node gives the next message the reply of this one. Where the connection fails instead, it clears up.
So a stopped run is made to look like a failed connection, at these two places and nowhere else.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flwr.supercore.run import RunNotRunningException

__all__ = ["whole_or_not_at_all"]

INTERRUPTIBLE = ("pull_object", "confirm_message_received")


def whole_or_not_at_all(pull_and_store: Callable[..., Any]) -> Callable[..., Any]:
    """Return Flower's step of receiving a message, such that nothing of a broken one remains.

    Parameters
    ----------
    pull_and_store : callable
        ``_pull_and_store_message`` of ``flwr.supernode.start_client_internal``, all of whose
        arguments are given by name.
    """

    @wraps(pull_and_store)
    def received(**given: Any) -> Any:
        for name in INTERRUPTIBLE:
            given[name] = _failing_plainly(given[name])
        return pull_and_store(**given)

    return received


def _failing_plainly(call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except RunNotRunningException as error:
            raise ConnectionAbortedError("the run has ended") from error

    return called
