"""What the parties of a consortium hand each other as files: signed, dated, and read with care.

Three kinds: a hospital's *request* to join, signed by its own node key; the coordinator's *welcome*
for that hospital; and the *manifest* of a study, both signed by the coordinator's run key. A paper
is one JSON object; its signature is over the canonical text of everything else in it.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.documents import check_keys, decode, digest, encode
from protocol.errors import PaperError, PayloadError

__all__ = [
    "MAX_PAPER_BYTES",
    "fingerprint_of",
    "grouped",
    "make_manifest",
    "make_request",
    "make_welcome",
    "read_manifest",
    "read_request",
    "read_welcome",
]

MAX_PAPER_BYTES = 1024 * 1024
REQUEST = frozenset({"kind", "site", "node_key", "version", "created", "signature"})
WELCOME = frozenset(
    {
        "kind",
        "consortium",
        "site",
        "address",
        "authority",
        "coordinator_key",
        "node_fingerprint",
        "issued",
        "signature",
    }
)
MANIFEST = frozenset(
    {
        "kind",
        "consortium",
        "study",
        "study_hash",
        "code_hash",
        "version",
        "stages",
        "serial",
        "issued",
        "expires",
        "signature",
    }
)
Signer = ec.EllipticCurvePrivateKey | Ed25519PrivateKey
Document = dict[str, Any]


def fingerprint_of(node_key_pem: str) -> str:
    """Return the SHA-256 of a node's public key (DER), 64 hexadecimal digits.

    Raises
    ------
    PaperError
        If the text is no elliptic-curve public key.
    """
    der = _node_key(node_key_pem).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def grouped(fingerprint: str) -> str:
    """Return a fingerprint in groups of eight, as it is read out on the telephone."""
    return " ".join(fingerprint[i : i + 8] for i in range(0, len(fingerprint), 8))


def make_request(site: str, key: ec.EllipticCurvePrivateKey, *, version: str, now: datetime) -> str:
    """Return a hospital's request to join; it proves that the hospital holds the private key."""
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _sign(
        {
            "kind": "request",
            "site": site,
            "node_key": public.decode(),
            "version": version,
            "created": now.isoformat(),
        },
        key,
    )


def read_request(text: str) -> Document:
    """Return a request whose signature is by the key it brings.

    Raises
    ------
    PaperError
        If it is no request, or was altered.
    """
    document = _read(text, "request", REQUEST)
    key = _node_key(document["node_key"])
    _verify(document, lambda s, body: key.verify(s, body, ec.ECDSA(hashes.SHA384())), "request")
    return document


def make_welcome(
    key: Ed25519PrivateKey,
    *,
    consortium: str,
    site: str,
    address: str,
    authority: str,
    node_fingerprint: str,
    now: datetime,
) -> str:
    """Return the coordinator's welcome for one hospital and its key.

    Parameters
    ----------
    address : str
        ``host:port`` at which the hospital's node finds the server.
    authority : str
        Certificate of the consortium's authority, PEM.
    """
    return _sign(
        {
            "kind": "welcome",
            "consortium": consortium,
            "site": site,
            "address": address,
            "authority": authority,
            "coordinator_key": key.public_key().public_bytes_raw().hex(),
            "node_fingerprint": node_fingerprint,
            "issued": now.isoformat(),
        },
        key,
    )


def read_welcome(text: str, *, site: str, node_fingerprint: str) -> Document:
    """Return a welcome that is whole and meant for this hospital and this key.

    It is signed by the key it brings: that the key is the coordinator's is for two people to
    compare, by its fingerprint, on the telephone.

    Raises
    ------
    PaperError
        If it is no welcome, was altered, or is another hospital's or another key's.
    """
    document = _read(text, "welcome", WELCOME)
    _verify(document, _coordinator(document["coordinator_key"]), "welcome")
    if document["site"] != site or document["node_fingerprint"] != node_fingerprint:
        raise PaperError(
            "The welcome is for another hospital or another key of this one; send the coordinator "
            "the request file that `concors-client request` writes now."
        )
    return document


def make_manifest(
    key: Ed25519PrivateKey,
    *,
    consortium: str,
    study: Document,
    code_hash: str,
    version: str,
    stages: Document,
    serial: int,
    now: datetime,
    expires: datetime,
) -> str:
    """Return the manifest of a study: what would run, with which code, and what would travel.

    Parameters
    ----------
    study : dict
        The whole study as JSON values, defaults filled in, as it stands in every request.
    stages : dict
        By stage: ``weights`` (fingerprint of the initial weights, or None), ``rounds``,
        ``down_mb`` and ``up_mb`` a hospital and round.
    serial : int
        Higher than that of every earlier manifest of this consortium.
    """
    return _sign(
        {
            "kind": "manifest",
            "consortium": consortium,
            "study": study,
            "study_hash": digest(study),
            "code_hash": code_hash,
            "version": version,
            "stages": stages,
            "serial": serial,
            "issued": now.isoformat(),
            "expires": expires.isoformat(),
        },
        key,
    )


def read_manifest(text: str, *, coordinator_key: str, now: datetime) -> Document:
    """Return a manifest that the coordinator signed and that is still valid.

    Raises
    ------
    PaperError
        If it is no manifest, was altered, is by another key, or is not valid at this time.
    """
    document = _read(text, "manifest", MANIFEST)
    _verify(document, _coordinator(coordinator_key), "manifest")
    if (
        not isinstance(document["study"], dict)
        or digest(document["study"]) != document["study_hash"]
    ):
        raise PaperError("The manifest's study is not the one its hash names; ask for a new one.")
    if type(document["serial"]) is not int or document["serial"] < 0:
        raise PaperError("The manifest's serial is no count; ask the coordinator for a new one.")
    issued, expires = _time(document["issued"]), _time(document["expires"])
    if not issued <= now <= expires:
        raise PaperError(
            f"The manifest is valid from {issued.isoformat()} to {expires.isoformat()}, and here "
            f"it is {now.isoformat(timespec='seconds')}; set the clock, or ask for a new one."
        )
    return document


def _sign(document: Document, key: Signer) -> str:
    body = encode(document, "A paper").encode()
    if isinstance(key, Ed25519PrivateKey):
        signature = key.sign(body)
    else:
        signature = key.sign(body, ec.ECDSA(hashes.SHA384()))
    return encode(document | {"signature": signature.hex()}, "A paper") + "\n"


def _read(text: str, kind: str, keys: frozenset[str]) -> Document:
    try:
        if len(text) > MAX_PAPER_BYTES:
            raise PayloadError(f"The {kind} is longer than 1 MiB")
        document = decode(text, f"The {kind}")
        check_keys(document, keys, f"The {kind}")
    except PayloadError as error:
        raise PaperError(f"This is no {kind} of this version ({error.sentence})") from error
    others = (value for key, value in document.items() if key not in ("study", "stages", "serial"))
    if document["kind"] != kind or not all(isinstance(value, str) for value in others):
        raise PaperError(f"This paper is no {kind}; give the file that was made as one.")
    return document


def _verify(document: Document, verify: Callable[[bytes, bytes], None], kind: str) -> None:
    body = {key: value for key, value in document.items() if key != "signature"}
    try:
        verify(bytes.fromhex(document["signature"]), encode(body, "A paper").encode())
    except (InvalidSignature, ValueError) as error:
        raise PaperError(
            f"The signature of the {kind} does not fit what it says or who should have signed it; "
            "it was altered or is somebody else's, so ask its sender for it again."
        ) from error


def _coordinator(public_hex: str) -> Callable[[bytes, bytes], None]:
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify
    except ValueError as error:
        raise PaperError("The coordinator's key is no Ed25519 key; ask for a new paper.") from error


def _node_key(pem: str) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError as error:
        raise PaperError("The node key is no public key in PEM; make a new request.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise PaperError("The node key is not an elliptic-curve key; make a new request.")
    return key


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise PaperError("A paper's date cannot be read; ask its sender for it again.") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
