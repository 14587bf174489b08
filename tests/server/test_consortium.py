"""A consortium's directory: private, complete, never overwritten, renewed by the same authority."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from protocol import audit
from protocol.errors import ConfigError
from server.consortium import Settings, load, split_address
from server.founding import create, renew

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SETTINGS = Settings(name="cordis", address="concors.example.org:8443", also=("10.1.2.3",))


def names_of(path: Path) -> tuple[list[str], list[str]]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    return names.get_values_for_type(x509.DNSName), addresses


def test_everything_is_for_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir(mode=0o755)
    made = create(tmp_path / "c", SETTINGS, now=NOW)
    for path in (made.root, *made.root.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path.name


def test_the_certificate_holds_every_name_and_fits_its_key(tmp_path: Path) -> None:
    made = create(tmp_path / "c", SETTINGS, now=NOW)
    names, addresses = names_of(made.certificate)
    assert names == ["concors.example.org", "localhost"]
    assert addresses == ["10.1.2.3", "127.0.0.1"]
    authority = x509.load_pem_x509_certificate(made.authority.read_bytes())
    server = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    server.verify_directly_issued_by(authority)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate, made.certificate_key)
    assert made.expires() == NOW + timedelta(days=397)


def test_renewal_keeps_the_authority_and_adds_names(tmp_path: Path) -> None:
    made = create(tmp_path / "c", SETTINGS, now=NOW)
    authority, run_key = made.authority.read_bytes(), (made.root / "run.key").read_bytes()
    old_key = made.certificate_key.read_bytes()
    renew(load(made.root), ("other.example.org",), now=NOW + timedelta(days=300))
    again = load(made.root)
    assert again.settings.also == ("10.1.2.3", "other.example.org")
    assert names_of(again.certificate)[0] == [
        "concors.example.org",
        "other.example.org",
        "localhost",
    ]
    assert again.expires() == NOW + timedelta(days=697)
    assert again.certificate_key.read_bytes() != old_key
    assert (again.authority.read_bytes(), (again.root / "run.key").read_bytes()) == (
        authority,
        run_key,
    )
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
        again.certificate, again.certificate_key
    )
    assert [line["event"] for line in audit.read(made.root / "audit.jsonl")] == ["init", "renew"]


def test_a_certificate_never_outlives_its_authority(tmp_path: Path) -> None:
    made = create(tmp_path / "c", SETTINGS, now=NOW)
    late = renew(made, (), now=NOW + timedelta(days=3640))
    assert late.expires() == NOW + timedelta(days=3650)
    with pytest.raises(ConfigError, match="The authority is valid until 2039-12-30"):
        renew(made, (), now=NOW + timedelta(days=3651))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    create(tmp_path / "c", SETTINGS, now=NOW)
    with pytest.raises(ConfigError, match="is not empty, and nothing is ever overwritten"):
        create(tmp_path / "c", SETTINGS, now=NOW)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        create(tmp_path / "file", SETTINGS, now=NOW)


def test_a_directory_without_settings_is_no_consortium(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no consortium; make one with `concors-server"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("a.example:1", ("a.example", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[2001:db8::1]:8443", ("2001:db8::1", 8443)),
    ],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address", ["host", "host:0", "host:65536", ":1", "a b:1", "http://a:1", "2001:db8::1:8443"]
)
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="is no address; write host:port"):
        create(tmp_path / "c", Settings(name="c", address=address), now=NOW)
    assert not (tmp_path / "c").exists()


def test_a_name_that_is_no_servers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'a/b' is neither a host name nor an IP address"):
        create(tmp_path / "c", Settings(name="c", address="a:1", also=("a/b",)), now=NOW)
