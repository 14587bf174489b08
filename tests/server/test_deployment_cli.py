"""The commands of a consortium as the coordinator types them, without a server that runs."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deployment.certificates import new_key
from deployment.node_keys import public_pem
from deployment.papers import fingerprint_of, grouped, make_request, read_welcome
from protocol import audit
from protocol.errors import ConcorsError, ConfigError, PaperError
from server.approval import write_approvals
from server.cli import app
from server.run_state import read

STUDY = {
    "name": "follow",
    "seed": 1,
    "hospitals": {"train": ["alder"]},
    "stages": ["survey", "regression"],
    "regression": {"covariates": ["age"]},
}


def say(*arguments: object) -> str:
    """Run a command and return what it printed, white space made single."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(result.exception, ConcorsError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(re.sub("[│┃┏━┳┓┡╇┩└─┴┘]", " ", result.output).split())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "c"
    say("init", root, "--name", "cordis", "--address", "a.example:8443", "--also", "10.0.0.1")
    return root


def admitted(root: Path, name: str = "alder") -> tuple[str, str]:
    """Admit a hospital; return its fingerprint and what was printed."""
    key = new_key()
    path = root.parent / f"{name}.json"
    path.write_text(make_request(name, key, version="0.1.0", now=datetime.now(UTC)))
    return fingerprint_of(public_pem(key).decode()), say("admit", root, path)


def study_file(root: Path) -> Path:
    path = root.parent / "study.yaml"
    path.write_text(yaml.safe_dump({"study": STUDY}))
    return path


def test_admitting_shows_what_is_compared_by_telephone(root: Path) -> None:
    fingerprint, printed = admitted(root)
    assert grouped(fingerprint) in printed
    welcome = (root.parent / "welcome-alder.json").read_text()
    document = read_welcome(welcome, site="alder", node_fingerprint=fingerprint)
    assert grouped(document["coordinator_key"]) in printed


def test_status_names_hospitals_runs_and_who_has_not_approved(root: Path) -> None:
    fingerprint, _ = admitted(root)
    printed = say("status", root)
    assert "cordis at a.example:8443: not running; certificate valid until" in printed
    assert f"alder {fingerprint[:8]}... {datetime.now(UTC):%Y-%m-%d} unknown" in printed
    assert "The run begins with" not in printed
    printed = say("run", root, study_file(root), "--detach")
    assert "The server is not started; the run begins with `concors-server start`." in printed
    write_approvals(root / "runs" / "follow-1", {"alder": "E810 It awaits approval there."})
    (root / "runs" / "follow-1" / "progress.jsonl").write_text(
        '{"what":"survey","done":1,"total":1,"note":""}\n{"what":"regre'
    )
    printed = say("status", root)
    assert "follow-1 running 0 survey: 1 of 1" in printed
    assert "alder: E810" in printed
    say("revoke", root, "alder")
    assert "revoked" in say("status", root)


def test_stop_and_resume_by_name_or_without(root: Path) -> None:
    admitted(root)
    say("run", root, study_file(root), "--detach")
    assert say("stop", root) == "follow-1 is stopped"
    assert read(root / "runs" / "follow-1").state == "stopped"
    assert "follow-1 is taken up again" in say("resume", root, "follow-1")
    assert read(root / "runs" / "follow-1").state == "running"
    events = [line["event"] for line in audit.read(root / "audit.jsonl")]
    assert events == ["init", "admit", "run", "stop", "resume"]
    with pytest.raises(ConfigError, match=r"There is no run that is stopped or failed; see"):
        say("resume", root)


def test_renew_says_until_when(root: Path) -> None:
    assert re.fullmatch(
        r"The certificate is valid until 20\d\d-\d\d-\d\d\.", say("renew", root, "--also", "b.c")
    )


def test_what_is_wrong_is_one_sentence(root: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty, and nothing is ever overwritten"):
        say("init", root, "--name", "x", "--address", "a:1")
    with pytest.raises(ConfigError, match="init: name: string should match pattern"):
        say("init", root.parent / "d", "--name", "a b", "--address", "a:1")
    with pytest.raises(ConfigError, match=r"none.json cannot be read as text; check the path"):
        say("admit", root, root.parent / "none.json")
    (root.parent / "long").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ConfigError, match="long is longer than 1 MiB; a request is not"):
        say("admit", root, root.parent / "long")
    with pytest.raises(PaperError, match="This is no request of this version"):
        say("admit", root, study_file(root))
    with pytest.raises(ConfigError, match="alder of study follow did not join this consortium"):
        say("run", root, study_file(root))
