"""Who a hospital is to its peers: a signing key, and keys for agreement signed with it.

Fingerprints are exchanged by people (by telephone, on paper, in the consortium agreement). A centre
that makes up a key of agreement would have to sign it with a key whose fingerprint stands in the
hospitals' own files.
"""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.documents import encode
from protocol.errors import PrivacyError
from protocol.secure import Advert, SessionCall

__all__ = ["advertise", "fingerprint_of", "verify"]

DOMAIN = "concors secure sum, key of agreement, 1"


def fingerprint_of(identity: bytes) -> str:
    """Return SHA-256 of an Ed25519 public key as 64 hexadecimal digits."""
    return hashlib.sha256(identity).hexdigest()


def _signed(study: str, call: SessionCall, site: str, agreement: bytes, identity: bytes) -> bytes:
    document = {
        "domain": DOMAIN,
        "study": study,
        "call": call.to_dict(),
        "site": site,
        "agreement": agreement.hex(),
        "identity": identity.hex(),
    }
    # Canonical JSON: one document has one encoding, and no choice of names imitates another.
    return encode(document, "A key of agreement").encode()


def advertise(
    key: Ed25519PrivateKey, study: str, call: SessionCall, site: str, agreement: bytes
) -> Advert:
    """Return a signed key of agreement.

    Parameters
    ----------
    study : str
        Hash of the study, which the signature binds with the session, its purpose, first round,
        cohort and threshold.
    agreement : bytes
        X25519 public key.
    """
    identity = key.public_key().public_bytes_raw()
    signature = key.sign(_signed(study, call, site, agreement, identity))
    return Advert(site, agreement, identity, signature)


def verify(advert: Advert, study: str, call: SessionCall, trusted: str) -> None:
    """Refuse a key of agreement that the peer did not sign for this occasion.

    Parameters
    ----------
    trusted : str
        The peer's fingerprint from the hospital's own file.

    Raises
    ------
    PrivacyError
        If the identity is another one or the signature does not hold.
    """
    if fingerprint_of(advert.identity) != trusted.lower():
        raise PrivacyError(
            f"The key that came for {advert.site} is not signed by the identity this hospital "
            "trusts; compare fingerprints with that hospital by telephone, not through the centre."
        )
    message = _signed(study, call, advert.site, advert.agreement, advert.identity)
    try:
        Ed25519PublicKey.from_public_bytes(advert.identity).verify(advert.signature, message)
    except (InvalidSignature, ValueError) as error:
        raise PrivacyError(
            f"The key that came for {advert.site} is not signed for this study, session and "
            "cohort; somebody changed or repeated it on its way, so ask the centre's operator."
        ) from error
