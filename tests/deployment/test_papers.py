"""Papers: whole they are read, altered anywhere, expired or somebody else's they are refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deployment import papers
from protocol.errors import PaperError

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
NODE, OTHER_NODE = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
CENTRE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CENTRE_KEY = CENTRE.public_key().public_bytes_raw().hex()


def request(key: ec.EllipticCurvePrivateKey = NODE) -> str:
    return papers.make_request("north", key, version="1", now=NOW)


FINGERPRINT = papers.fingerprint_of(json.loads(request())["node_key"])


def welcome() -> str:
    return papers.make_welcome(
        CENTRE,
        consortium="atlas",
        site="north",
        address="centre.example:9443",
        authority="PEM",
        node_fingerprint=FINGERPRINT,
        now=NOW,
    )


def manifest(key: Ed25519PrivateKey = CENTRE, days: int = 30) -> str:
    return papers.make_manifest(
        key,
        consortium="atlas",
        study={"name": "s", "seed": 1},
        code_hash="c" * 64,
        version="1",
        stages={"segment": {"weights": None, "rounds": 3, "down_mb": 1.0, "up_mb": 1.0}},
        serial=4,
        now=NOW,
        expires=NOW + timedelta(days=days),
    )


def read(kind: str, text: str) -> dict[str, Any]:
    if kind == "request":
        return papers.read_request(text)
    if kind == "welcome":
        return papers.read_welcome(text, site="north", node_fingerprint=FINGERPRINT)
    return papers.read_manifest(text, coordinator_key=CENTRE_KEY, now=NOW + timedelta(days=1))


WRITTEN = {"request": request, "welcome": welcome, "manifest": manifest}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_whole_paper_says_what_was_written(kind: str) -> None:
    text = WRITTEN[kind]()
    document = read(kind, text)
    assert document["kind"] == kind
    assert document == json.loads(text)


@pytest.mark.parametrize("kind", WRITTEN)
def test_any_changed_value_is_refused(kind: str) -> None:
    document = json.loads(WRITTEN[kind]())
    for key, value in document.items():
        changed = {"serial": 5, "study": {"name": "s", "seed": 2}, "stages": {}}.get(
            key, f"{value[:-1]}{'0' if str(value)[-1] != '0' else '1'}" if type(value) is str else 0
        )
        with pytest.raises(PaperError):
            read(kind, json.dumps(document | {key: changed}))


@pytest.mark.parametrize("kind", WRITTEN)
def test_more_or_less_than_agreed_is_refused(kind: str) -> None:
    document = json.loads(WRITTEN[kind]())
    with pytest.raises(PaperError, match="1 unknown"):
        read(kind, json.dumps(document | {"note": "x"}))
    del document["signature"]
    with pytest.raises(PaperError, match="lacks signature"):
        read(kind, json.dumps(document))
    with pytest.raises(PaperError, match="longer than 1 MiB"):
        read(kind, "x" * (papers.MAX_PAPER_BYTES + 1))


def test_a_request_needs_the_private_key_of_the_key_it_brings() -> None:
    stolen = json.loads(request()) | {"node_key": json.loads(request(OTHER_NODE))["node_key"]}
    with pytest.raises(PaperError, match="signature"):
        papers.read_request(json.dumps(stolen))


def test_a_welcome_is_for_one_hospital_and_one_key() -> None:
    for site, fingerprint in (("south", FINGERPRINT), ("north", "0" * 64)):
        with pytest.raises(PaperError, match="another hospital or another key"):
            papers.read_welcome(welcome(), site=site, node_fingerprint=fingerprint)


def test_a_manifest_is_the_coordinators_and_has_its_time() -> None:
    with pytest.raises(PaperError, match="signature"):
        read("manifest", manifest(STRANGER))
    for now in (NOW - timedelta(seconds=1), NOW + timedelta(days=30, seconds=1)):
        with pytest.raises(PaperError, match="valid from"):
            papers.read_manifest(manifest(), coordinator_key=CENTRE_KEY, now=now)


def test_a_fingerprint_is_read_out_in_groups() -> None:
    assert papers.grouped("0123456789abcdef") == "01234567 89abcdef"
