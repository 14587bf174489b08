"""The hospital's signing key: made at the hospital, kept at the hospital, known by its fingerprint.

The file ``site.identity`` beside ``site.yaml`` holds an Ed25519 private key of 32 bytes as
hexadecimal text, readable by its owner only, like the key of the pseudonyms.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.pseudonyms import load_secret
from privacy.secure_sum.identities import fingerprint_of

__all__ = ["IDENTITY_FILE", "load_identity", "own_fingerprint"]

IDENTITY_FILE = "site.identity"


def load_identity(site_dir: Path) -> Ed25519PrivateKey:
    """Return the hospital's signing key, making it on first use.

    Raises
    ------
    DataError
        If the file cannot be read or made.
    """
    return Ed25519PrivateKey.from_private_bytes(load_secret(site_dir, IDENTITY_FILE)[:32])


def own_fingerprint(site_dir: Path) -> str:
    """Return what the peers enter in their ``site.yaml``: 64 hexadecimal digits."""
    return fingerprint_of(load_identity(site_dir).public_key().public_bytes_raw())
