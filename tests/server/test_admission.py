"""Admitting and revoking: whose key it is, whose it was, and what the welcome says."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployment.certificates import new_key
from deployment.node_keys import public_pem
from deployment.papers import fingerprint_of, make_request, read_welcome
from protocol import audit
from protocol.errors import ConfigError, PaperError
from server.admission import admit, hospitals, revoke
from server.consortium import Consortium, Settings
from server.founding import create

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return create(tmp_path / "c", Settings(name="cordis", address="a.example:8443"), now=NOW)


def request(site: str, key: object = None) -> str:
    return make_request(site, key or new_key(), version="0.1.0", now=NOW)  # type: ignore[arg-type]


def events(consortium: Consortium) -> list[str]:
    return [line["event"] for line in audit.read(consortium.root / "audit.jsonl")]


def test_the_welcome_is_for_this_hospital_and_its_key(consortium: Consortium) -> None:
    key = new_key()
    hospital, welcome = admit(consortium, request("alder", key), replace_key=False, now=NOW)
    fingerprint = fingerprint_of(public_pem(key).decode())
    document = read_welcome(welcome, site="alder", node_fingerprint=fingerprint)
    assert document["address"] == "a.example:8443"
    assert document["authority"] == consortium.authority.read_text()
    assert document["coordinator_key"] == (
        consortium.run_key().public_key().public_bytes_raw().hex()
    )
    assert hospital.fingerprint == fingerprint
    assert hospitals(consortium) == {"alder": hospital}
    assert hospital.is_member


def test_admitting_again_with_the_same_key_changes_nothing_but_gives_a_welcome(
    consortium: Consortium,
) -> None:
    key = new_key()
    first, _ = admit(consortium, request("alder", key), replace_key=False, now=NOW)
    later = NOW.replace(year=2031)
    again, welcome = admit(consortium, request("alder", key), replace_key=False, now=later)
    assert again == first
    assert json.loads(welcome)["issued"] == later.isoformat()


def test_another_key_needs_replace_and_the_old_one_never_comes_back(
    consortium: Consortium,
) -> None:
    old = new_key()
    first, _ = admit(consortium, request("alder", old), replace_key=False, now=NOW)
    with pytest.raises(ConfigError, match="alder was admitted with another key on 2030-01-01"):
        admit(consortium, request("alder"), replace_key=False, now=NOW)
    assert hospitals(consortium)["alder"] == first
    second, _ = admit(consortium, request("alder"), replace_key=True, now=NOW)
    assert second.fingerprint != first.fingerprint
    assert second.former == (first.fingerprint,)
    with pytest.raises(ConfigError, match="This key was withdrawn from alder"):
        admit(consortium, request("alder", old), replace_key=True, now=NOW)
    with pytest.raises(ConfigError, match="This key was withdrawn from alder"):
        admit(consortium, request("birch", old), replace_key=False, now=NOW)


def test_a_revoked_hospital_comes_back_with_a_new_key_only(consortium: Consortium) -> None:
    key = new_key()
    admit(consortium, request("alder", key), replace_key=False, now=NOW)
    assert not revoke(consortium, "alder", now=NOW).is_member
    with pytest.raises(ConfigError, match="alder is no member; the members are none"):
        revoke(consortium, "alder", now=NOW)
    with pytest.raises(ConfigError, match="withdrawn"):
        admit(consortium, request("alder", key), replace_key=True, now=NOW)
    back, _ = admit(consortium, request("alder"), replace_key=False, now=NOW)
    assert back.is_member
    assert events(consortium) == ["init", "admit", "revoke", "admit"]


def test_one_key_is_one_hospitals(consortium: Consortium) -> None:
    key = new_key()
    admit(consortium, request("alder", key), replace_key=False, now=NOW)
    with pytest.raises(ConfigError, match="This key is alder's; every hospital makes its own"):
        admit(consortium, request("birch", key), replace_key=False, now=NOW)


@pytest.mark.parametrize("name", ["../alder", "", "a/b", "x" * 65, "alder\n"])
def test_a_name_that_is_no_file_name_is_refused(consortium: Consortium, name: str) -> None:
    with pytest.raises(PaperError, match="hospital name is not 1 to 64 letters"):
        admit(consortium, request(name), replace_key=False, now=NOW)
    assert not list(consortium.hospitals.iterdir())


def test_an_altered_request_is_refused(consortium: Consortium) -> None:
    text = request("alder").replace('"site":"alder"', '"site":"birch"')
    with pytest.raises(PaperError, match="signature of the request does not fit"):
        admit(consortium, text, replace_key=False, now=NOW)


def test_an_altered_file_is_refused(consortium: Consortium) -> None:
    admit(consortium, request("alder"), replace_key=False, now=NOW)
    path = consortium.hospitals / "alder.json"
    other = public_pem(new_key()).decode()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"node_key": other}))
    with pytest.raises(ConfigError, match=r"hospitals/alder.json was altered"):
        hospitals(consortium)
