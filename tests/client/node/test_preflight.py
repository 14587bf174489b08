import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deployment.credentials import make_credentials
from typer.testing import CliRunner

from client.cli import app
from client.membership import join, node_fingerprint, request
from client.node.preflight import Line, preflight
from deployment.papers import make_welcome


def _lines(site: Path) -> dict[str, Line]:
    return {line.what: line for line in preflight(site)}


@pytest.fixture
def joined(site: Path, tmp_path: Path) -> Path:
    """A hospital whose server is not there: nobody listens at the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    keys = make_credentials(tmp_path / "keys", 0, now=datetime.now(UTC))
    request(site)
    welcome = make_welcome(
        Ed25519PrivateKey.generate(),
        consortium="Heart",
        site="alpha",
        address=f"127.0.0.1:{port}",
        authority=keys.authority.read_text(),
        node_fingerprint=node_fingerprint(site),
        now=datetime.now(UTC),
    )
    (tmp_path / "welcome.json").write_text(welcome)
    join(site, tmp_path / "welcome.json")
    return site


def test_hospital_that_has_not_joined_is_told_how(site: Path) -> None:
    lines = _lines(site)
    assert lines["site.yaml"].good
    assert lines["data"].good
    assert "concors-client request" in lines["node key"].mend
    assert "concors-client" in lines["welcome"].mend
    assert "server" not in lines


def test_server_that_is_not_there_is_named(joined: Path) -> None:
    lines = _lines(joined)
    wrong = {what for what, line in lines.items() if not line.good}
    # An authority of a week, as this one is, ends soon.
    assert wrong == {"server", "authority"}
    assert "firewall" in lines["server"].mend


@pytest.mark.parametrize(
    ("harm", "what", "mend"),
    [
        (lambda site: (site / ".concors/node/node.key").chmod(0o644), "node key", "chmod 600"),
        (lambda site: (site / ".concors/node").chmod(0o755), "node key", "chmod 700"),
        (lambda site: (site / "policy.yaml").write_text("a: 1"), "policy.yaml", "unknown key 'a'"),
        (lambda site: (site / "outcomes.csv").unlink(), "data", "names nothing that exists"),
        (lambda site: (site / "outcomes.csv").write_text("a\n1\n"), "data", "no column 'patient'"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(joined: Path, harm, what: str, mend: str) -> None:
    harm(joined)
    assert mend in _lines(joined)[what].mend


def test_command_says_no_by_its_exit_code(joined: Path) -> None:
    result = CliRunner().invoke(app, ["preflight", str(joined)])
    assert result.exit_code == 1
    assert "OK   site.yaml: hospital alpha" in result.output
    assert "MEND server:" in result.output
