"""What each of the SuperLink's two doors lets through.

Flower serves everything on one port: what nodes ask (fleet), what server apps ask (runtime) and
what the coordinator asks (control, without any authentication). So the same application gets two
doors. Hospitals reach one that knows only the fleet; the other is on the loopback address, and its
control part asks for a token that only the coordinator's own files hold.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

from deployment.control import TOKEN_HEADER
from server.superlink.access_log import AccessLog, shown_fingerprint

__all__ = ["MAX_BODY_BYTES", "fleet_gate", "own_gate"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# A message comes in pieces of 1.25 MiB, and the list of the pieces; a node's body is read whole
# before its signature is checked.
MAX_BODY_BYTES = 32 * 2**20
HEALTH = "/health"
FLEET = "/v1/fleet/"
RUNTIME = "/v1/runtime/"
CONTROL = "/v1/control/"


def fleet_gate(app: App, log: AccessLog, max_body_bytes: int = MAX_BODY_BYTES) -> App:
    """Return the door for hospitals: ``/v1/fleet/*`` and ``/health``, every request logged.

    Parameters
    ----------
    app : ASGI application
        The SuperLink.
    max_body_bytes : int
        Longest request; a longer one, or one that does not say how long it is, is refused unread.
    """

    async def gate(scope: Message, receive: Receive, send: Send) -> None:
        headers, path = _headers(scope), str(scope.get("path", ""))
        length = _length(headers)
        answered = {"status": 0, "bytes": 0}

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered["status"] = message["status"]
            elif message["type"] == "http.response.body":
                answered["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            if scope["type"] != "http" or not (path.startswith(FLEET) or path == HEALTH):
                await _refuse(counted, 403)
            elif length is None or length > max_body_bytes:
                await _refuse(counted, 413)
            else:
                await app(scope, receive, counted)
        finally:
            key = headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER, "")
            log.write(
                ip=(scope.get("client") or ("", 0))[0],
                path=path,
                status=answered["status"],
                bytes_in=length or 0,
                bytes_out=answered["bytes"],
                key=shown_fingerprint(key) if key else "",
            )

    return gate


def own_gate(app: App, token: str) -> App:
    """Return the door for this machine: the server app's part, and with the token the control.

    Anybody with an account on this machine can reach it; without the token he reaches what asks
    for a secret of its own (the runtime) and nothing else.
    """

    async def gate(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        path = str(scope.get("path", ""))
        shown = _headers(scope).get(TOKEN_HEADER, "")
        controls = path.startswith(CONTROL) and hmac.compare_digest(shown.encode(), token.encode())
        if scope["type"] == "http" and (controls or path.startswith(RUNTIME) or path == HEALTH):
            await app(scope, receive, send)
        else:
            await _refuse(send, 403)

    return gate


def _headers(scope: Message) -> dict[str, str]:
    return {k.decode("latin1").lower(): v.decode("latin1") for k, v in scope.get("headers", ())}


def _length(headers: dict[str, str]) -> int | None:
    """Return how long the body says it is; None when it does not."""
    if "transfer-encoding" in headers:
        return None
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else None


async def _refuse(send: Send, status: int) -> None:
    # The connection ends, so that a body that nobody reads is not waited for.
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
