"""A hospital's end on this machine, in one process that stays: ``python -m sim.engines.hospital``.

It answers what arrives at its hospital's SuperNode, as `client.node` does on a machine of the
hospital's own, but for what stands there between a consortium and its members: there is no policy
of work, no reply is kept, and who is lost is not replaced, for then the study has failed.
"""

import argparse
import importlib
from pathlib import Path

from client.node.arrivals import Arrivals
from client.node.gatekeeper import Gatekeeper
from client.node.pulling import soon
from client.node.worker import App, reply_of
from deployment.flower import HOST
from deployment.processes import wait_for_port
from protocol.errors import EngineError

__all__ = ["main"]

UP_S = 120.0


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
    gatekeeper = Gatekeeper(
        f"{HOST}:{given.port}",
        given.secret,
        arrivals,
        lambda message, _: reply_of(app, message, given.site),
    )
    gatekeeper.run(lambda: None)


def _app(name: str) -> App:
    module, _, attribute = name.partition(":")
    app: App = getattr(importlib.import_module(module), attribute)
    return app


if __name__ == "__main__":
    main()
