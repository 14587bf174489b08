"""How a node fetches a message: soon, and as a whole or not at all.

Flower asks for an array that is not there yet again after 1 s, then 2 s, and so on; the SuperNode
looks for a message while the server is still storing it, and the gatekeeper while the SuperNode is.

A message that its run's end interrupts is forgotten as a whole.

Flower's node makes a task, stores the message and then pulls the message's arrays. When the run is
stopped in between (a server app was killed, and the run is taken up as a new one), it forgets only
to go on: task and message stay, whoever takes the task waits for arrays that never come, and the
node gives the next message the reply of this one. Where the connection fails instead, it clears up.
So a stopped run is made to look like a failed connection, at these two places and nowhere else.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.run import RunNotRunningException

__all__ = ["soon", "whole_or_not_at_all"]

INTERRUPTIBLE = ("pull_object", "confirm_message_received")
FIRST_LOOK_S = 0.05


def soon() -> None:
    """Let this process ask for an array again after 0.05 s, then twice as long each time."""
    for pull in (
        inflatable_utils.pull_objects,
        inflatable_utils.pull_and_inflate_object_from_tree,
    ):
        pull.__kwdefaults__["initial_backoff"] = FIRST_LOOK_S


def whole_or_not_at_all(
    pull_and_store: Callable[..., Any], tell: Callable[[], None]
) -> Callable[..., Any]:
    """Return Flower's step of receiving a message, such that nothing of a broken one remains.

    Parameters
    ----------
    pull_and_store : callable
        ``_pull_and_store_message`` of ``flwr.supernode.start_client_internal``, all of whose
        arguments are given by name.
    tell : callable
        Called when a message is there as a whole.
    """

    @wraps(pull_and_store)
    def received(**given: Any) -> Any:
        for name in INTERRUPTIBLE:
            given[name] = _failing_plainly(given[name])
        run = pull_and_store(**given)
        if run is not None:
            tell()
        return run

    return received


def _failing_plainly(call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except RunNotRunningException as error:
            raise ConnectionAbortedError("the run has ended") from error

    return called
