"""A run without a server beside it: what happens when the server it would be cannot be."""

import fcntl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from protocol.errors import ConfigError
from server.consortium import Settings
from server.founding import create
from server.serving import served


def test_a_server_that_cannot_be_ends_the_waiting_and_says_why(tmp_path: Path) -> None:
    settings = Settings(name="heart", address="localhost:8443")
    consortium = create(tmp_path / "heart", settings, now=datetime.now(UTC))
    (consortium.root / "running").mkdir()
    stop, said = threading.Event(), list[str]()
    with (consortium.root / "running" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(ConfigError, match="heart is started already"),
            served(consortium, stop, said.append),
        ):
            assert stop.wait(timeout=60)
    assert said == []


def test_what_fails_inside_is_told_and_not_the_end_of_the_server(tmp_path: Path) -> None:
    settings = Settings(name="heart", address="localhost:8443")
    consortium = create(tmp_path / "heart", settings, now=datetime.now(UTC))
    (consortium.root / "running").mkdir()
    stop = threading.Event()
    with (consortium.root / "running" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(KeyError, match="run"), served(consortium, stop, print):
            raise KeyError("run")
    assert stop.is_set()
    assert not [each for each in threading.enumerate() if each.name == "server"]
