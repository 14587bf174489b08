"""Flower's SuperNode with a shorter breath: ``python -m client.node.supernode`` and its own flags.

As it comes it looks for work every 3 s and for a finished reply every 0.5 s, and tells the server
every 20 s that it lives, so that a restart is refused for up to a minute. When the server was away
it waits up to 20 s before it tries again. None of this is a setting, so it is set here, in the
modules of the one version that is pinned.
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from client.node.arrivals import teller
from client.node.pulling import Turns, soon

__all__ = ["Pauses", "main"]

# The least that the SuperLink accepts; a node is taken for gone after twice this time.
HEARTBEAT_S = 10
LOOK_S = 0.3
REPLY_S = 0.05
# The longest rest between two tries to reach a server that is away; Flower's 20 s are as long as a
# server takes to be back.
RETRY_S = 4
# A study's messages follow each other closely; between studies the server is left in peace.
IDLE_S = 120.0


class Pauses:
    """Stands in for the module ``time`` in Flower's loop: as little rest as the work allows.

    Parameters
    ----------
    sleep, now : callable
        Of the real module.
    """

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._now = now
        self._busy_until = now() + IDLE_S

    def sleep(self, seconds: float) -> None:
        """Rest as long as Flower says where nothing happens, and shorter where something does."""
        if seconds < 1.0:
            self._busy_until = self._now() + IDLE_S
            self._sleep(min(seconds, REPLY_S))
        elif self._now() < self._busy_until:
            self._sleep(min(seconds, LOOK_S))
        else:
            self._sleep(seconds)


def main() -> None:
    """Run the SuperNode that the command line describes."""
    fleet: Any = import_module("flwr.supernode.fleet_http_connection")
    heartbeat: Any = import_module("flwr.supercore.heartbeat")
    loop: Any = import_module("flwr.supernode.start_client_internal")
    retry: Any = import_module("flwr.supercore.retry.http_retry")
    retry.MAX_RETRY_DELAY = RETRY_S
    fleet.HEARTBEAT_DEFAULT_INTERVAL = HEARTBEAT_S
    heartbeat.HEARTBEAT_DEFAULT_INTERVAL = HEARTBEAT_S
    loop.time = Pauses()
    soon()
    turns = Turns(loop._pull_and_store_message, loop._push_messages, teller())
    loop._pull_and_store_message, loop._push_messages = turns.pull, turns.push
    import_module("flwr.supernode.cli.flower_supernode").flower_supernode()


if __name__ == "__main__":
    main()
