"""Certificates: the chain holds, the names are those asked for, authorities sign servers only."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from deployment.certificates import (
    certificate_pem,
    make_authority,
    make_server_certificate,
    new_key,
    private_pem,
)
from deployment.private_files import write_private
from protocol.errors import ConfigError

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def test_the_chain_holds_and_the_names_are_those_asked_for(tmp_path: Path) -> None:
    authority_key, key = new_key(), new_key()
    authority = make_authority(authority_key, "cordis", now=NOW, lifetime=30 * DAY)
    server = make_server_certificate(
        key,
        ("concors.example.org", "10.0.0.7", "2001:db8::1", "herz.müller.example", "10.0.0.7"),
        authority,
        authority_key,
        now=NOW,
        lifetime=30 * DAY,
    )
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.7"),
        ipaddress.ip_address("2001:db8::1"),
    ]
    assert names.get_values_for_type(x509.DNSName) == [
        "concors.example.org",
        "herz.xn--mller-kva.example",
    ]
    assert server.not_valid_after_utc == NOW + 30 * DAY
    assert server.not_valid_before_utc < NOW
    # The key fits the certificate, or OpenSSL would refuse the pair.
    (tmp_path / "crt").write_bytes(certificate_pem(server))
    write_private(tmp_path / "key", private_pem(key))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "crt", tmp_path / "key")


def test_a_server_is_no_authority_and_an_authority_makes_no_authorities() -> None:
    authority_key = new_key()
    authority = make_authority(authority_key, "cordis", now=NOW, lifetime=DAY)
    server = make_server_certificate(
        new_key(), ("a",), authority, authority_key, now=NOW, lifetime=DAY
    )
    for certificate, is_authority, path in ((authority, True, 0), (server, False, None)):
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (basic.critical, basic.value.ca, basic.value.path_length) == (
            True,
            is_authority,
            path,
        )
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.key_cert_sign is is_authority


def test_a_server_may_not_outlive_its_authority_by_a_second() -> None:
    key = new_key()
    authority = make_authority(key, "cordis", now=NOW, lifetime=DAY)
    with pytest.raises(ConfigError, match="The authority is valid until 2030-01-02"):
        make_server_certificate(
            new_key(), ("a",), authority, key, now=NOW, lifetime=DAY + timedelta(seconds=1)
        )


@pytest.mark.parametrize("name", ["", "a b", "*.example.org", "a/b", "x" * 64, "a..b"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    key = new_key()
    authority = make_authority(key, "cordis", now=NOW, lifetime=DAY)
    with pytest.raises(ConfigError, match="is neither a host name nor an IP address"):
        make_server_certificate(new_key(), ("a", name), authority, key, now=NOW, lifetime=DAY)
