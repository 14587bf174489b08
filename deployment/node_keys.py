"""A node's key: by it a hospital's SuperNode proves at every request which hospital it is."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployment.private_files import write_private

__all__ = ["public_pem", "write_node_key"]


def write_node_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    """Write a node's private key in OpenSSH's format, the one ``flower-supernode`` reads."""
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return write_private(path, content)


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public key as PEM SubjectPublicKeyInfo, as the SuperLink registers it."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
