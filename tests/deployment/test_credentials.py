"""Credentials: the chain holds, the names are the loopback's, the private files are private."""

import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from deployment.credentials import make_credentials

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_server_certificate_is_signed_by_the_authority_and_names_the_loopback(
    tmp_path: Path,
) -> None:
    made = make_credentials(tmp_path / "keys", 0, now=NOW, lifetime=timedelta(days=1))
    authority = x509.load_pem_x509_certificate(made.authority.read_bytes())
    server = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert server.not_valid_after_utc == NOW + timedelta(days=1)
    assert server.not_valid_before_utc < NOW
    # The key fits the certificate, or OpenSSL would refuse the pair.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate, made.key)


def test_every_site_has_its_own_key_and_secret_and_no_authority_key_is_written(
    tmp_path: Path,
) -> None:
    made = make_credentials(tmp_path / "keys", 3, now=NOW)
    assert len({site.public_pem for site in made.sites}) == 3
    assert len({site.secret.read_bytes() for site in made.sites} | {made.secret.read_bytes()}) == 4
    for site in made.sites:
        private = serialization.load_ssh_private_key(site.private.read_bytes(), None)
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert public == site.public_pem
    keys = {path.name for path in (tmp_path / "keys").glob("*.key")}
    assert keys == {"server.key", "site-0.key", "site-1.key", "site-2.key"}


def test_private_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    made = make_credentials(tmp_path / "keys", 1, now=NOW)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for path in (made.key, made.secret, made.sites[0].private, made.sites[0].secret):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
