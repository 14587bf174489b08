import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deployment.credentials import make_credentials

from client.membership import has_joined, join, load_welcome, node_fingerprint, request
from deployment.papers import make_welcome, read_request
from protocol.errors import PaperError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    keys = make_credentials(tmp_path_factory.mktemp("keys"), 0, now=datetime.now(UTC))
    return keys.authority.read_text()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "alpha").mkdir()
    (tmp_path / "alpha" / "site.yaml").write_text(
        "name: alpha\noutcomes: {path: o.csv, patient: p, months: m, event: e}\n"
    )
    request(tmp_path / "alpha")
    return tmp_path / "alpha"


def _welcome(at: Path, pem: str, key: Ed25519PrivateKey | None = None, **other: str) -> Path:
    values = {
        "consortium": "Heart",
        "site": "alpha",
        "address": "centre.example:8443",
        "authority": pem,
        "node_fingerprint": node_fingerprint(at),
        "now": datetime.now(UTC),
    } | other
    path = at.parent / "alpha.welcome.json"
    path.write_text(make_welcome(key or Ed25519PrivateKey.generate(), **values))
    return path


def test_request_is_signed_by_a_key_that_stays_and_only_its_owner_reads(site: Path) -> None:
    name, fingerprint, paper = request(site)
    again = request(site)
    assert (name, fingerprint) == again[:2] == ("alpha", node_fingerprint(site))
    assert read_request(paper)["site"] == "alpha"
    folder = site / ".concors" / "node"
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (folder, *folder.iterdir())}
    assert modes == {"node": 0o700, "node.key": 0o600, "request.json": 0o600}
    assert b"OPENSSH PRIVATE KEY" in (folder / "node.key").read_bytes()
    assert "PRIVATE" not in paper


def test_welcome_is_taken_up(site: Path, authority: str) -> None:
    assert not has_joined(site)
    with pytest.raises(PaperError, match="has joined no consortium yet; take up"):
        load_welcome(site)
    join(site, _welcome(site, authority))
    assert load_welcome(site)["address"] == "centre.example:8443"
    assert (site / ".concors" / "node" / "ca.crt").read_text() == authority


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"site": "beta"}, "for another hospital or another key"),
        ({"node_fingerprint": "0" * 64}, "for another hospital or another key"),
        ({"address": "centre.example"}, "address is not host:port"),
        ({"address": "centre.example:99999"}, "address is not host:port"),
        ({"authority": "no certificate"}, "certificate of the authority is none"),
    ],
)
def test_wrong_welcome_is_refused(site: Path, authority: str, other, sentence: str) -> None:
    with pytest.raises(PaperError, match=sentence):
        join(site, _welcome(site, authority, **other))
    assert not has_joined(site)


def test_altered_welcome_is_refused_when_it_comes_and_later(site: Path, authority: str) -> None:
    path = _welcome(site, authority)
    whole = path.read_text()
    path.write_text(whole.replace("centre.example", "elsewhere.example"))
    with pytest.raises(PaperError, match="signature of the welcome does not fit"):
        join(site, path)
    path.write_text(whole)
    join(site, path)
    stored = site / ".concors" / "node" / "welcome.json"
    stored.write_text(json.dumps(json.loads(whole) | {"address": "elsewhere.example:1"}))
    with pytest.raises(PaperError, match="signature of the welcome does not fit"):
        load_welcome(site)


def test_another_consortium_needs_a_word(site: Path, authority: str) -> None:
    first, second = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    join(site, _welcome(site, authority, first))
    join(site, _welcome(site, authority, first, address="moved.example:8443"))
    assert load_welcome(site)["address"] == "moved.example:8443"
    with pytest.raises(PaperError, match=r"in the consortium Heart, and .* give --replace"):
        join(site, _welcome(site, authority, second, consortium="Lung"))
    join(site, _welcome(site, authority, second, consortium="Lung"), replace=True)
    assert load_welcome(site)["consortium"] == "Lung"


def test_welcome_of_endless_length_is_not_read(site: Path) -> None:
    path = site.parent / "long.json"
    path.write_bytes(b" " * 300_000)
    with pytest.raises(PaperError, match="at most 256 KiB"):
        join(site, path)
