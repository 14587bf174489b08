"""A hospital's commands from its request to its decisions, as they are typed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from typer.testing import CliRunner

from client import node_cli
from client.cli import app
from client.manifests import receive
from client.membership import node_fingerprint
from deployment.certificates import certificate_pem, make_authority, new_key
from deployment.papers import grouped, make_manifest, make_welcome
from protocol.code import code_hash
from protocol.config import Study
from protocol.documents import digest

KEY = Ed25519PrivateKey.generate()
STUDY = Study.model_validate(
    {
        "name": "trial",
        "seed": 1,
        "hospitals": {"train": ["alpha"]},
        "stages": ["survey", "prognosis"],
        "prognosis": {"covariates": ["age"], "measurements": [], "network": {"name": "tabular"}},
    }
).model_dump(mode="json", by_alias=True)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    # The console is made when the module is loaded, in whatever terminal that is.
    monkeypatch.setattr(node_cli, "console", Console(width=200))


def _type(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "alpha").mkdir()
    (tmp_path / "alpha" / "site.yaml").write_text(
        "name: alpha\noutcomes: {path: o.csv, patient: p, months: m, event: e}\n"
    )
    return tmp_path / "alpha"


def _welcome(site: Path) -> Path:
    now, week = datetime.now(UTC), timedelta(days=7)
    authority = make_authority(new_key(), "Heart", now=now, lifetime=week)
    path = site.parent / "alpha.welcome.json"
    paper = make_welcome(
        KEY,
        consortium="Heart",
        site="alpha",
        address="centre.example:8443",
        authority=certificate_pem(authority).decode(),
        node_fingerprint=node_fingerprint(site),
        now=datetime.now(UTC),
    )
    path.write_text(paper)
    return path


def test_from_request_to_decision(site: Path) -> None:
    told = _type("request", site, "--out", site.parent)
    assert grouped(node_fingerprint(site)) in told
    assert (site.parent / "alpha.request.json").is_file()
    assert "concors-client join" in _type("start", site, code=1).replace("\n", " ")
    told = _type("join", site, _welcome(site))
    key = KEY.public_key().public_bytes_raw()
    assert grouped(key.hex()) in told
    assert "alpha has joined Heart at centre.example:8443" in told
    manifest = make_manifest(
        KEY,
        consortium="Heart",
        study=STUDY,
        code_hash=code_hash(),
        version="0.1.0",
        stages={"prognosis": {"weights": None, "rounds": 3, "down_mb": 1.5, "up_mb": 0.5}},
        serial=1,
        now=datetime.now(UTC),
        expires=datetime.now(UTC) + timedelta(days=1),
    )
    receive(site, manifest)
    listed = _type("studies", site)
    short = digest(STUDY)[:8]
    for part in ("trial", short, "tabular", "fedavg", "1.5 / 0.5", "waiting"):
        assert part in listed
    assert "is approved" in _type("approve", site, short)
    assert "approved" in _type("studies", site)
    assert "is declined" in _type("decline", site, digest(STUDY))
    assert "declined" in _type("studies", site)
    _type("approve", site, "00000000", code=1)


def test_request_that_cannot_be_written_says_so(site: Path) -> None:
    told = _type("request", site, "--out", site / "nowhere", code=1)
    assert "cannot be written" in told.replace("\n", " ")
