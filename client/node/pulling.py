"""How a node takes its messages: soon, whole or not at all, and each with its own reply.

Flower asks for an array that is not there yet again after 1 s, then 2 s, and so on; the SuperNode
looks for a message while the server is still storing it, and the gatekeeper while the SuperNode is.

When a run is stopped while one of its messages is pulled (a server app was killed, and the run is
taken up as a new one), Flower's node forgets only to go on: task and message stay, and whoever
takes the task waits for arrays that never come. Where the connection fails instead, it clears up.
So a stopped run is made to look like a failed connection, at these two places and nowhere else.

And Flower's node sends whatever reply is there first. When somebody had begun to work on a message
that was given up, his reply goes out in the place of the next one, and every later reply is one
message late. So replies to anything but the message at hand are dropped.
"""

from collections.abc import Callable
from typing import Any

from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.run import RunNotRunningException

__all__ = ["FIRST_LOOK_S", "Turns", "soon"]

INTERRUPTIBLE = ("pull_object", "confirm_message_received")
FIRST_LOOK_S = 0.05


def soon() -> None:
    """Let this process ask for an array again after 0.05 s, then twice as long each time."""
    for pull in (
        inflatable_utils.pull_objects,
        inflatable_utils.pull_and_inflate_object_from_tree,
    ):
        pull.__kwdefaults__["initial_backoff"] = FIRST_LOOK_S


class Turns:
    """The two steps of a SuperNode's loop: a message comes, and its reply goes.

    Parameters
    ----------
    pull_and_store, push : callable
        ``_pull_and_store_message`` and ``_push_messages`` of
        ``flwr.supernode.start_client_internal``, all of whose arguments are given by name.
    tell : callable
        Called when a message is there as a whole.
    """

    def __init__(
        self,
        pull_and_store: Callable[..., Any],
        push: Callable[..., None],
        tell: Callable[[], None],
    ) -> None:
        self._pull_and_store = pull_and_store
        self._push = push
        self._tell = tell
        self._at_hand = ""

    def pull(self, **given: Any) -> Any:
        """Receive a message as a whole, or leave nothing of it."""
        receive = given["receive"]

        def received() -> Any:
            found = receive()
            if found is not None:
                self._at_hand = found[0].metadata.message_id
            return found

        plainly = {name: _failing_plainly(given[name]) for name in INTERRUPTIBLE}
        run = self._pull_and_store(**{**given, **plainly, "receive": received})
        if run is not None:
            self._tell()
        return run

    def push(self, **given: Any) -> None:
        """Wait for the reply to the message at hand, and send it."""
        state = _RepliesTo(self._at_hand, given["state"], given["object_store"])
        self._push(**{**given, "state": state})


class _RepliesTo:
    """A node's state in which no reply but those to one message can be seen."""

    def __init__(self, asked: str, state: Any, store: Any) -> None:
        self._asked, self._state, self._store = asked, state, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_messages_legacy(self, **filters: Any) -> list[Any]:
        """Return the replies to the message; others are removed."""
        replies = []
        for message in self._state.get_messages_legacy(**filters):
            metadata = message.metadata
            if metadata.reply_to_message_id == self._asked:
                replies.append(message)
            else:
                self._state.delete_messages(message_ids=[metadata.message_id])
                self._store.delete(metadata.message_id)
        return replies


def _failing_plainly(call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except RunNotRunningException as error:
            raise ConnectionAbortedError("the run has ended") from error

    return called
