"""What makes Flower's server slow when several hospitals send at once, and what is done about it.

As it comes it answered some 25 requests a second on two cores, however small they were. Three
things cost most of that time, and each is undone here without changing what is answered; modules
that flwr does not call public are used here and in `server.superlink` only (flwr 1.41.0 exactly).
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.supercore.sql_mixin import SqlMixin
from flwr.superlink import main as flower
from sqlalchemy.orm import Session
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["quicken", "whole_body"]

# Flower's layers that look at nothing outside these paths. The others are for every request.
PATHS = {
    "ControlSensitiveResponseMiddleware": "/v1/control/",
    "ControlAuthenticationMiddleware": "/v1/control/",
    "ControlLicenseMiddleware": "/v1/control/",
    "ControlEventLogMiddleware": "/v1/control/",
    "RuntimeTracingMiddleware": "/v1/runtime/",
    "NodeAuthMiddleware": "/v1/fleet/",
    "FleetEventLogMiddleware": "/v1/fleet/",
}
# The event loop takes turns with the threads that do the work; Python's 5 ms are ten hops' time.
SWITCH_S = 0.0005


def quicken() -> None:
    """Undo them in this process, before the application is made."""
    sys.setswitchinterval(SWITCH_S)
    _one_transaction_at_a_time()
    layers = flower._get_middleware
    flower._get_middleware = lambda: [_where_it_acts(layer) for layer in layers()]


def _one_transaction_at_a_time() -> None:
    """Let the threads of this process take turns at the database.

    SQLite has one writer, and who finds it busy sleeps, up to a tenth of a second each time, and
    looks again. A thread that waits for a lock is woken when its turn comes.
    """
    turn = threading.RLock()
    session = SqlMixin.session

    @contextmanager
    def session_in_turn(self: SqlMixin) -> Iterator[Session]:
        with turn, session(self) as opened:
            yield opened

    SqlMixin.session = session_in_turn


def _where_it_acts(layer: Middleware) -> Middleware:
    """Return a layer that requests to other paths do not pass through.

    Each layer hands every part of every body through queues and tasks of its own.
    """
    prefix = PATHS.get(getattr(layer.cls, "__name__", ""))
    return layer if prefix is None else Middleware(_Only, layer=layer, prefix=prefix)


class _Only:
    def __init__(self, app: ASGIApp, layer: Middleware, prefix: str) -> None:
        self._app = app
        self._layered: ASGIApp = layer.cls(app, *layer.args, **layer.kwargs)
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inside = str(scope.get("path", "")).startswith(self._prefix)
        await (self._layered if inside else self._app)(scope, receive, send)


async def whole_body(receive: Receive, max_bytes: int) -> Receive | None:
    """Read a request's body, and return a `receive` that gives it in one part.

    Parameters
    ----------
    receive : callable
        Of an HTTP request.
    max_bytes : int
        The longest body.

    Returns
    -------
    callable or None
        None if the body is longer, or the caller has gone.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > max_bytes:
            return None
    first: list[dict[str, Any]] = [{"type": "http.request", "body": b"".join(parts)}]

    async def once() -> Any:
        return first.pop() if first else await receive()

    return once
