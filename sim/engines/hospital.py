"""A hospital's end on this machine, in one process that stays: ``python -m sim.engines.hospital``.

It answers what arrives at its hospital's SuperNode, as `client.node` does on a machine of the
hospital's own, but for what stands there between a consortium and its members: there is no policy
of work, no reply is kept, and who is lost is not replaced, for then the study has failed.
"""

import argparse
import importlib
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
from flwr.app import Context, Message

from client.node.arrivals import Arrivals
from client.node.gatekeeper import Gatekeeper
from client.node.pulling import soon
from client.node.worker import App, reply_of
from deployment.flower import HOST
from deployment.processes import wait_for_port
from protocol.errors import EngineError

__all__ = ["main"]

UP_S = 120.0
TRIES, PAUSE_S = 5, 1.0


def main() -> None:
    """Serve the SuperNode that the command line names, until the process is ended."""
    parser = argparse.ArgumentParser(prog="sim.engines.hospital")
    parser.add_argument("site", type=Path)
    parser.add_argument("--app", required=True, help="module:attribute of the client app")
    parser.add_argument("--port", type=int, required=True, help="of the SuperNode, on loopback")
    parser.add_argument("--secret", type=Path, required=True)
    parser.add_argument("--arrivals", type=Path, required=True)
    given = parser.parse_args()
    app = _app(given.app)
    soon()
    arrivals = Arrivals(given.arrivals)
    if not wait_for_port(given.port, UP_S):
        raise EngineError(f"The SuperNode did not come up within {UP_S:.0f} s; its log says why.")
    address = f"{HOST}:{given.port}"

    def answer(message: Message, _: Callable[[], None]) -> Message:
        return reply_of(app, message, given.site)

    for _ in range(TRIES):
        # On a machine that is busy with all hospitals at once, a call may run out of its time.
        with suppress(httpx.TransportError):
            Gatekeeper(address, given.secret, arrivals, answer).run(lambda: None)
        time.sleep(PAUSE_S)
    raise EngineError("The SuperNode does not answer any more; its log says why.")


def _app(name: str) -> App:
    """Return the app of this name, which says here, and only here, why it failed."""
    module, _, attribute = name.partition(":")
    app: App = getattr(importlib.import_module(module), attribute)

    def told(message: Message, context: Context) -> Message:
        try:
            return app(message, context)
        except Exception:
            traceback.print_exc()
            raise

    return told


if __name__ == "__main__":
    main()
