"""Who may look at the dashboard, and who may press its buttons.

A link with a random token opens it once; from then on a cookie does, so that the token stays in no
history and no log. A button's request carries a second secret that only the page knows, and comes
from the page's own origin: a page of someone else's in the same browser has neither.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CSRF_HEADER", "HEADERS", "REPORT_POLICY", "Access"]

CSRF_HEADER = "x-concors-csrf"
SECRET_BYTES = 32
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
# The report is one file with its style and figures inside; it runs and loads nothing.
REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def _secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def _same(given: str | None, expected: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), expected.encode())


@dataclass(frozen=True)
class Access:
    """The secrets of one dashboard, for as long as its process lives.

    Attributes
    ----------
    port : int
        Browsers give a cookie to every port of a host, so its name holds the port.
    token, session, csrf : str
        In the link, in the cookie, in the page.
    """

    port: int
    secure: bool = False
    token: str = field(default_factory=_secret, repr=False)
    session: str = field(default_factory=_secret, repr=False)
    csrf: str = field(default_factory=_secret, repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return f"concors_{self.port}"

    def opens(self, token: str | None) -> bool:
        """Return whether a link's token is the right one."""
        return _same(token, self.token)

    def may_look(self, cookies: Mapping[str, str], headers: Mapping[str, str]) -> bool:
        """Return whether a request comes from who was let in (header names in lower case).

        A program shows the token itself, as ``Authorization: Bearer``.
        """
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        return _same(cookies.get(self.cookie), self.session) or self.opens(bearer)

    def may_press(self, headers: Mapping[str, str]) -> bool:
        """Return whether a button's request comes from our own page."""
        origin, host = headers.get("origin"), headers.get("host", "")
        scheme = "https" if self.secure else "http"
        return _same(headers.get(CSRF_HEADER), self.csrf) and origin == f"{scheme}://{host}"
