"""Contexts of encrypted connections, from files inside the site's directory."""

import ssl
from pathlib import Path

from client.pacs.settings import Tls
from protocol.errors import ConfigError

__all__ = ["client_context", "server_context"]


def client_context(site_dir: Path, tls: Tls) -> ssl.SSLContext:
    """Return the context of a connection to the archive; its certificate and name are checked.

    Raises
    ------
    ConfigError
        If a file is absent, outside the site's directory, or no certificate or key.
    """
    return _context(ssl.Purpose.SERVER_AUTH, site_dir, tls)


def server_context(site_dir: Path, tls: Tls) -> ssl.SSLContext:
    """Return the context under which the archive calls back; it must show a certificate."""
    context = _context(ssl.Purpose.CLIENT_AUTH, site_dir, tls)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _context(purpose: ssl.Purpose, site_dir: Path, tls: Tls) -> ssl.SSLContext:
    authority = _confined(site_dir, tls.authority, "authority")
    certificate = _confined(site_dir, tls.certificate, "certificate")
    key = _confined(site_dir, tls.key, "key")
    try:
        # With an authority given, the system's are not trusted as well.
        context = ssl.create_default_context(purpose, cafile=authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            # Without a password at hand, a locked key is an error and not a question.
            context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise ConfigError(
            "a file of pacs.tls cannot be read as PEM certificates or an unlocked PEM key; "
            "correct pacs.tls in site.yaml."
        ) from error
    return context


def _confined(site_dir: Path, relative: str | None, key: str) -> Path | None:
    if relative is None:
        return None
    root = site_dir.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise ConfigError(
            f"pacs.tls.{key} leads out of the site's directory; put the file below it."
        )
    return path
