"""How a consortium's directory is made, with all its keys, and how its certificate is renewed."""

from datetime import datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deployment.certificates import (
    certificate_pem,
    make_authority,
    make_server_certificate,
    new_key,
    private_pem,
)
from deployment.private_files import make_private_dir, write_atomic, write_private
from protocol.errors import ConfigError
from server.consortium import SETTINGS_FILE, Consortium, Settings, split_address

__all__ = ["create", "renew"]

AUTHORITY_LIFETIME = timedelta(days=3650)
# What browsers have come to accept at most; nobody here has to, but a year is a good habit.
SERVER_LIFETIME = timedelta(days=397)
A_DAY = timedelta(days=1)
LOCAL_NAMES = ("localhost", "127.0.0.1")


def create(root: Path, settings: Settings, *, now: datetime) -> Consortium:
    """Make the directory of a new consortium, with all its keys.

    Raises
    ------
    ConfigError
        If there is something in the directory already, or a name is no server's name.
    """
    split_address(settings.address)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(
            f"{root} is not empty, and nothing is ever overwritten; give a new directory."
        )
    make_private_dir(root)
    # A directory that was there, empty, may have been open to all.
    root.chmod(0o700)
    made = Consortium(root.resolve(), settings)
    for folder in (made.authority.parent, made.certificate.parent, made.hospitals, made.runs):
        make_private_dir(folder)
    key = new_key()
    authority = make_authority(key, settings.name, now=now, lifetime=AUTHORITY_LIFETIME)
    _write_server_certificate(made, authority, key, now)
    write_private(root / "ca" / "ca.key", private_pem(key))
    write_private(made.authority, certificate_pem(authority))
    write_private(root / "run.key", _ed25519_pem(Ed25519PrivateKey.generate()))
    # Last: a directory without settings is not taken for a consortium.
    _write_settings(made)
    made.note("init", name=settings.name, address=settings.address)
    return made


def renew(consortium: Consortium, also: tuple[str, ...], *, now: datetime) -> Consortium:
    """Write a new certificate for the server, by the same authority; hospitals notice nothing.

    Parameters
    ----------
    also : tuple of str
        Names to add to those it has.

    Returns
    -------
    Consortium
        With the added names in its settings.
    """
    names = tuple(dict.fromkeys((*consortium.settings.also, *also)))
    changed = Consortium(consortium.root, consortium.settings.model_copy(update={"also": names}))
    key = serialization.load_pem_private_key((consortium.root / "ca" / "ca.key").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("ca/ca.key is no elliptic-curve key; restore the one that `init` made.")
    authority = x509.load_pem_x509_certificate(consortium.authority.read_bytes())
    _write_server_certificate(changed, authority, key, now)
    _write_settings(changed)
    changed.note("renew", names=list(names), expires=changed.expires().isoformat())
    return changed


def _write_server_certificate(
    consortium: Consortium,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> None:
    settings, key = consortium.settings, new_key()
    host, _ = split_address(settings.address)
    certificate = make_server_certificate(
        key,
        # The programs of this machine call it by its loopback names.
        (host, *settings.also, *LOCAL_NAMES),
        authority,
        authority_key,
        now=now,
        # At the end of the authority's life this asks for more than it can give, and says so.
        lifetime=max(min(SERVER_LIFETIME, authority.not_valid_after_utc - now), A_DAY),
    )
    # The launcher reads both again when the certificate changes, so the key comes first.
    write_atomic(consortium.certificate_key, private_pem(key))
    write_atomic(consortium.certificate, certificate_pem(certificate))


def _write_settings(consortium: Consortium) -> None:
    values = consortium.settings.model_dump(mode="json")
    write_atomic(consortium.root / SETTINGS_FILE, yaml.safe_dump(values, sort_keys=False).encode())


def _ed25519_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
