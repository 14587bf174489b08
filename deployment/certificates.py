"""The certificates of a consortium: its own authority, and the server's for all of its names.

Hospitals trust this authority and no other, and only for the server's address: there is no need of
a public one, and none could be tricked into signing for somebody else.
"""

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import ConfigError

__all__ = ["certificate_pem", "make_authority", "make_server_certificate", "new_key", "private_pem"]

# Clocks of two machines differ, and a certificate valid from "now" may be read a moment before.
SKEW = timedelta(minutes=5)
MAX_NAME = 64


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh P-384 private key: for an authority, a server or a node."""
    return ec.generate_private_key(ec.SECP384R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, not encrypted: for a file only its owner may read."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_authority(
    key: ec.EllipticCurvePrivateKey, name: str, *, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return the self-signed certificate of an authority that may sign servers, not authorities.

    Parameters
    ----------
    name : str
        The consortium, for people who look at the certificate.
    now : datetime
        The present, with a time zone.
    lifetime : timedelta
        How long it is valid.
    """
    subject = _name(f"{name} authority")
    return (
        _builder(key.public_key(), subject, subject, now, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )


def make_server_certificate(
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    *,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """Return a TLS certificate of a server, signed by the authority.

    Parameters
    ----------
    names : sequence of str
        Host names and IP addresses under which clients call the server.

    Raises
    ------
    ConfigError
        When a name is neither, or when the authority is not valid as long as the certificate
        would be.
    """
    if now + lifetime > authority.not_valid_after_utc:
        raise ConfigError(
            f"The authority is valid until {authority.not_valid_after_utc:%Y-%m-%d}, the server's "
            "certificate would be longer; make a new consortium, or a certificate for fewer days."
        )
    # Clients check the address they called against these names, never the common name.
    alternatives = [_alternative(name) for name in dict.fromkeys(names)]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(key.public_key(), _name(names[0]), authority.subject, now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority_key, hashes.SHA384())
    )


def _builder(
    key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
    )


def _alternative(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    try:
        # As it travels: a name with other letters is called by its ASCII form.
        ascii_name = name.encode("idna").decode()
    except UnicodeError as error:
        raise ConfigError(
            f"'{name}' is neither a host name nor an IP address; give the server's names."
        ) from error
    letters = ascii_name.replace("-", "").replace(".", "")
    if not letters.isalnum():
        raise ConfigError(
            f"'{name}' is neither a host name nor an IP address; give the server's names."
        )
    return x509.DNSName(ascii_name)


def _name(common_name: str) -> x509.Name:
    # X.520 bounds a common name; the names that matter are the alternative ones.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:MAX_NAME])])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
