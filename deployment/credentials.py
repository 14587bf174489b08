"""The keys of a consortium that lives on one machine for one run, and is worthless after it.

A real consortium keeps its authority (``concors-server init``), and every hospital makes its own
node key (``concors-client``).
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from deployment.certificates import (
    certificate_pem,
    make_authority,
    make_server_certificate,
    new_key,
    private_pem,
)
from deployment.flower import HOST
from deployment.node_keys import public_pem, write_node_key
from deployment.private_files import make_private_dir, write_private

__all__ = ["Credentials", "SiteKey", "make_credentials"]


@dataclass(frozen=True)
class SiteKey:
    """A SuperNode's identity.

    Attributes
    ----------
    private : Path
        Elliptic-curve private key, OpenSSH format, readable by its owner only.
    public_pem : bytes
        The public key as PEM SubjectPublicKeyInfo, the form in which the SuperLink registers it.
    secret : Path
        Shared secret between this SuperNode and the process that starts its client app.
    """

    private: Path
    public_pem: bytes
    secret: Path


@dataclass(frozen=True)
class Credentials:
    """Files one SuperLink and its SuperNodes need, and nothing of the authority but its name."""

    authority: Path
    certificate: Path
    key: Path
    secret: Path
    sites: tuple[SiteKey, ...]


def make_credentials(
    directory: Path, num_sites: int, *, now: datetime, lifetime: timedelta = timedelta(days=7)
) -> Credentials:
    """Make and write the credentials of a consortium that lives on the loopback address.

    Parameters
    ----------
    directory : Path
        Where the files go; made with mode 0700.
    num_sites : int
        Number of SuperNodes.
    now : datetime
        The present, with a time zone.
    lifetime : timedelta
        How long the certificates are valid.

    Returns
    -------
    Credentials
        The paths. The authority's private key is not among them: it is never written.
    """
    make_private_dir(directory)
    authority_key, server_key = new_key(), new_key()
    authority = make_authority(authority_key, "Concors loopback", now=now, lifetime=lifetime)
    server = make_server_certificate(
        server_key, ("localhost", HOST), authority, authority_key, now=now, lifetime=lifetime
    )
    (directory / "ca.crt").write_bytes(certificate_pem(authority))
    (directory / "server.crt").write_bytes(certificate_pem(server))
    return Credentials(
        authority=directory / "ca.crt",
        certificate=directory / "server.crt",
        key=write_private(directory / "server.key", private_pem(server_key)),
        secret=write_private(directory / "server.secret", secrets.token_bytes(32)),
        sites=tuple(_site_key(directory, number) for number in range(num_sites)),
    )


def _site_key(directory: Path, number: int) -> SiteKey:
    key = new_key()
    return SiteKey(
        private=write_node_key(directory / f"site-{number}.key", key),
        public_pem=public_pem(key),
        secret=write_private(directory / f"site-{number}.secret", secrets.token_bytes(32)),
    )
