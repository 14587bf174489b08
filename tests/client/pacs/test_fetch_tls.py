"""Encrypted archives: an authority of the tests' own, both protocols, and who is not let in."""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydicom import dcmread

from client.intake.quiet import quietly
from client.pacs.fetch import fetch
from client.pacs.wanted import Entry
from sim.orthanc import Orthanc, OrthancTls, free_port

TLS = {"authority": "tls/ca.pem", "certificate": "tls/own.pem", "key": "tls/own.key"}
DAY = timedelta(days=1)


def make_authority(folder: Path) -> None:
    """Write an authority, and a certificate and key that it vouches for on both ends of a line."""
    folder.mkdir()
    now = datetime.now(UTC)
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("tests", "archive")
    ]

    def start(subject: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not signs, False, not signs, False, False, signs, signs, False, False)

    identifier = x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key())
    authority = (
        start(names[0], keys[0])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(keys[0], hashes.SHA256())
    )
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    own = (
        start(names[1], keys[1])
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(keys[0], hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "own.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (folder / "own.key").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            sink.sendall(content)
    for end in (source, sink):
        with suppress(OSError):
            socket.socket.shutdown(end, socket.SHUT_RDWR)


@contextmanager
def proxy(tls: Path, port: int) -> Iterator[int]:
    """Encrypt what goes to a port, as a hospital's web server does in front of its archive."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "own.pem", tls / "own.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=carry, args=(plain,)).start()

    def carry(plain: socket.socket) -> None:
        with plain, suppress(OSError):
            plain.settimeout(20)
            with (
                context.wrap_socket(plain, server_side=True) as outside,
                socket.create_connection(("127.0.0.1", port)) as inside,
            ):
                back = threading.Thread(target=pump, args=(inside, outside))
                back.start()
                pump(outside, inside)
                back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture(scope="module")
def secure(
    needs_orthanc: None, real_images: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, int], int, Path, Path]]:
    """An archive's encrypted ports, the port it calls back on, the authority, an image of six."""
    folder = tmp_path_factory.mktemp("tls")
    make_authority(folder / "tls")
    tls = folder / "tls"
    own_port = free_port()
    files = OrthancTls(tls / "ca.pem", tls / "own.pem", tls / "own.key")
    with (
        Orthanc(folder / "orthanc", {"CONCORS": own_port}, files) as orthanc,
        proxy(tls, orthanc.http_port) as web_port,
    ):
        orthanc.upload(path.read_bytes() for path in real_images[:6])
        classic = orthanc.dicom_port
        ports = {"c-get": classic, "c-move": classic, "dicomweb": web_port}
        yield ports, own_port, tls, real_images[0]


def copy(tls: Path, site: Path) -> None:
    (site / "tls").mkdir()
    for path in tls.iterdir():
        (site / "tls" / path.name).write_bytes(path.read_bytes())


def study_of(path: Path) -> list[Entry]:
    with quietly():
        uid = str(dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    return [Entry(1, uid=uid)]


def make(secure: Any, make_site: Callable[..., Path], protocol: str, **pacs: Any) -> Path:
    ports, own_port, tls, _ = secure
    site = make_site(protocol, ports[protocol], own_port, retries=0, **({"tls": TLS} | pacs))
    copy(tls, site)
    return site


@pytest.mark.parametrize("protocol", ["c-get", "c-move", "dicomweb"])
def test_studies_come_encrypted(protocol: str, secure: Any, make_site: Callable[..., Path]) -> None:
    summary = fetch(make(secure, make_site, protocol), study_of(secure[3]))
    assert summary.is_whole and summary.stored == 6, summary


@pytest.mark.parametrize("protocol", ["c-get", "dicomweb"])
def test_an_archive_of_another_authority_is_not_spoken_to(
    protocol: str, secure: Any, make_site: Callable[..., Path], tmp_path: Path
) -> None:
    make_authority(tmp_path / "other")
    site = make(secure, make_site, protocol)
    (site / "tls" / "ca.pem").write_bytes((tmp_path / "other" / "ca.pem").read_bytes())
    summary = fetch(site, study_of(secure[3]))
    assert summary.stored == 0 and "cannot be reached" in summary.incomplete[0][1]


def test_a_site_without_a_certificate_is_not_let_in(
    secure: Any, make_site: Callable[..., Path]
) -> None:
    for tls in ({"authority": "tls/ca.pem"}, None):
        site = make(secure, make_site, "c-get", tls=tls, connect_timeout_s=5)
        summary = fetch(site, study_of(secure[3]))
        assert summary.stored == 0 and summary.incomplete[0][1].startswith("the archive ")
