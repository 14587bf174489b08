"""The keys of one consortium on one machine: an authority, a server certificate, a key per site.

Everything is made fresh for one run and is worthless after it. A real consortium keeps the
authority's key off-line and lets every hospital make its own node key.
"""

import ipaddress
import os
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Credentials", "SiteKey", "make_credentials", "write_private"]

# Clocks of one machine agree, but a certificate valid from "now" may be read a moment before.
SKEW = timedelta(minutes=5)


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
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_key = ec.generate_private_key(ec.SECP384R1())
    authority = _authority(authority_key, now, lifetime)
    server_key = ec.generate_private_key(ec.SECP384R1())
    server = _server(server_key, authority, authority_key, now, lifetime)
    (directory / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (directory / "server.crt").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    return Credentials(
        authority=directory / "ca.crt",
        certificate=directory / "server.crt",
        key=write_private(
            directory / "server.key",
            server_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        ),
        secret=write_private(directory / "server.secret", secrets.token_bytes(32)),
        sites=tuple(_site_key(directory, number) for number in range(num_sites)),
    )


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its owner may read, from the first byte on; replace an old one."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path


def _site_key(directory: Path, number: int) -> SiteKey:
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return SiteKey(
        private=write_private(directory / f"site-{number}.key", private),
        public_pem=public,
        secret=write_private(directory / f"site-{number}.secret", secrets.token_bytes(32)),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


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


def _authority(
    key: ec.EllipticCurvePrivateKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    name = _name("Concors loopback authority")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    # Clients check the address they called against these names, never the common name.
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(_name("Concors loopback SuperLink"))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA384())
    )
