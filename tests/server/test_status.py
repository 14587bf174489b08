"""Whether a server is well: it runs, and what it keeps going has answered lately."""

import fcntl
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli import app
from server.consortium import Consortium, Settings
from server.founding import create
from server.status import is_well

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    settings = Settings(name="heart", address="localhost:8443")
    made = create(tmp_path / "heart", settings, now=datetime.now(UTC))
    (made.root / "running").mkdir()
    return made


@pytest.fixture
def held(consortium: Consortium) -> Iterator[None]:
    """Hold the lock that a running server holds."""
    with (consortium.root / "running" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def answered(consortium: Consortium, when: datetime) -> None:
    text = json.dumps({"time": when.isoformat(), "nodes": {}})
    (consortium.root / "running" / "status.json").write_text(text)


def test_a_server_that_does_not_run_is_not_well(consortium: Consortium) -> None:
    answered(consortium, NOW)
    assert not is_well(consortium, NOW)


@pytest.mark.usefixtures("held")
def test_a_server_is_well_while_its_superlink_answers(consortium: Consortium) -> None:
    assert not is_well(consortium, NOW)
    answered(consortium, NOW)
    assert is_well(consortium, NOW + timedelta(seconds=119))
    assert not is_well(consortium, NOW + timedelta(seconds=120))


@pytest.mark.usefixtures("held")
def test_the_exit_code_says_it(consortium: Consortium) -> None:
    command = ["status", str(consortium.root), "--well"]
    answered(consortium, NOW)
    assert CliRunner().invoke(app, command).exit_code == 1
    answered(consortium, datetime.now(UTC))
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.output.count("\n")) == (0, 1)
    assert "heart at localhost:8443: running" in done.output
