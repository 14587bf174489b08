"""A hospital's membership of one consortium: its node key, its request, and its welcome.

Everything lies in ``.concors/node/`` of the site's directory, for its owner's eyes only:
``node.key`` (elliptic curve P-384, OpenSSH, the form Flower's SuperNode reads), ``request.json``,
``welcome.json`` and ``ca.crt``.
"""

import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client.site import load_site
from deployment.node_keys import public_pem, write_node_key
from deployment.papers import fingerprint_of, make_request, read_welcome
from deployment.private_files import make_private_dir, write_atomic
from protocol.errors import PaperError

__all__ = [
    "coordinator_fingerprint",
    "has_joined",
    "join",
    "load_key",
    "load_welcome",
    "node_directory",
    "node_fingerprint",
    "request",
]

MAX_WELCOME_BYTES = 256 * 1024
Document = dict[str, Any]


def node_directory(site_dir: Path) -> Path:
    """Return ``.concors/node`` of a site's directory; made with mode 0700 if absent."""
    folder = site_dir.resolve() / ".concors" / "node"
    folder.parent.mkdir(exist_ok=True)
    return make_private_dir(folder)


def request(site_dir: Path) -> tuple[str, str, str]:
    """Return the hospital's name, its node key's fingerprint and its request to join.

    The key is made on first use; later calls write a request with the same key.

    Raises
    ------
    ConfigError
        If ``site.yaml`` is wrong.
    PaperError
        If the key that is there cannot be read.
    """
    name = load_site(site_dir).name
    folder = node_directory(site_dir)
    if not (folder / "node.key").exists():
        write_node_key(folder / "node.key", ec.generate_private_key(ec.SECP384R1()))
    key = load_key(site_dir)
    paper = make_request(name, key, version=version("concors"), now=datetime.now(UTC))
    write_atomic(folder / "request.json", paper.encode())
    return name, _fingerprint(key), paper


def load_key(site_dir: Path) -> ec.EllipticCurvePrivateKey:
    """Return the node's private key.

    Raises
    ------
    PaperError
        If there is none or it cannot be read.
    """
    path = node_directory(site_dir) / "node.key"
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError as error:
        raise PaperError(
            "This hospital has no node key yet; make one with concors-client request."
        ) from error
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise PaperError(
            "The node key of this hospital cannot be read; restore it from a backup, or remove it "
            "and ask to join anew with concors-client request."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PaperError("The node key is not an elliptic-curve key; remove it and request anew.")
    return key


def node_fingerprint(site_dir: Path) -> str:
    """Return the SHA-256 of the node's public key, 64 hexadecimal digits."""
    return _fingerprint(load_key(site_dir))


def _fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    return fingerprint_of(public_pem(key).decode())


def join(site_dir: Path, welcome: Path, *, replace: bool = False) -> Document:
    """Take up a coordinator's welcome and return it.

    Parameters
    ----------
    welcome : Path
        The file that the coordinator sent.
    replace : bool
        Leave the consortium the hospital is in, if it is another one.

    Raises
    ------
    PaperError
        If the welcome is altered, for another hospital or key, or of another consortium.
    """
    try:
        with welcome.open("rb") as stream:
            content = stream.read(MAX_WELCOME_BYTES + 1)
        if len(content) > MAX_WELCOME_BYTES:
            raise ValueError
        text = content.decode()
    except (OSError, ValueError) as error:
        raise PaperError(
            "The welcome cannot be read as a text of at most 256 KiB; give the file that the "
            "coordinator sent."
        ) from error
    document = _checked(site_dir, text)
    folder = node_directory(site_dir)
    if has_joined(site_dir) and not replace:
        before = load_welcome(site_dir)
        if before["coordinator_key"] != document["coordinator_key"]:
            raise PaperError(
                f"This hospital is in the consortium {before['consortium']}, and the welcome is "
                f"another coordinator's, for {document['consortium']}; give --replace to leave the "
                "one for the other."
            )
    write_atomic(folder / "ca.crt", document["authority"].encode())
    write_atomic(folder / "welcome.json", text.encode())
    return document


def has_joined(site_dir: Path) -> bool:
    """Say whether the hospital has taken up a welcome."""
    # lexists: a link that leads nowhere is a welcome that cannot be read, not one that is absent.
    return os.path.lexists(site_dir / ".concors" / "node" / "welcome.json")


def load_welcome(site_dir: Path) -> Document:
    """Return the welcome that the hospital took up, checked again.

    Raises
    ------
    PaperError
        If there is none, or it was altered since.
    """
    path = site_dir / ".concors" / "node" / "welcome.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PaperError(
            "This hospital has joined no consortium yet; take up the coordinator's welcome with "
            "concors-client join."
        ) from error
    return _checked(site_dir, text)


def coordinator_fingerprint(welcome: Document) -> str:
    """Return the coordinator's public key, which two people compare on the telephone."""
    return str(welcome["coordinator_key"])


def _checked(site_dir: Path, text: str) -> Document:
    document = read_welcome(
        text, site=load_site(site_dir).name, node_fingerprint=node_fingerprint(site_dir)
    )
    host, colon, port = document["address"].rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise PaperError(
            "The welcome's address is not host:port; ask the coordinator for a new one."
        )
    try:
        x509.load_pem_x509_certificate(document["authority"].encode())
    except ValueError as error:
        raise PaperError(
            "The welcome's certificate of the authority is none; ask the coordinator for a new one."
        ) from error
    return document
