"""A run without a server beside it: the command that follows the run is the server meanwhile."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from protocol.errors import ConcorsError
from server.consortium import Consortium
from server.supervisor import supervise

__all__ = ["served", "stop_on_signals"]


@contextmanager
def served(
    consortium: Consortium, stop: threading.Event, say: Callable[[str], None]
) -> Iterator[None]:
    """Keep a consortium's server going in a thread as long as the block lasts.

    Parameters
    ----------
    stop : threading.Event
        Set by whoever wants the server to end, and set here when it has ended by itself.
    say : callable
        Tells the operator one line.

    Raises
    ------
    ConcorsError
        After the block, if the server could not be started or was lost.
    """
    failed: list[ConcorsError] = []

    def keep() -> None:
        try:
            supervise(consortium, stop=stop, say=say)
        except ConcorsError as error:
            failed.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=keep, name="server")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def stop_on_signals(stop: threading.Event) -> None:
    """Have SIGTERM, SIGHUP and Ctrl-C set an event instead of ending the process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
