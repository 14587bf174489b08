import threading
import time
from pathlib import Path

import pytest

from client.node.arrivals import VARIABLE, Arrivals, teller


def nothing() -> None:
    """Do nothing."""


def test_an_arrival_ends_the_waiting_and_only_once(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path / "arrived")
    tell = teller({VARIABLE: str(tmp_path / "arrived")})
    threading.Timer(0.1, tell).start()
    began = time.monotonic()
    arrivals.wait(60.0, nothing)
    assert time.monotonic() - began < 60.0
    again = time.monotonic()
    arrivals.wait(0.1, nothing)
    assert time.monotonic() - again >= 0.1


def test_what_arrived_before_the_waiting_is_not_waited_for(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path / "arrived")
    teller({VARIABLE: str(tmp_path / "arrived")})()
    arrivals.wait(60.0, lambda: pytest.fail("it waited"))


def test_what_is_watched_meanwhile_can_end_the_waiting(tmp_path: Path) -> None:
    def lost() -> None:
        raise RuntimeError("the node is gone")

    with pytest.raises(RuntimeError, match="gone"):
        Arrivals(tmp_path / "arrived").wait(60.0, lost)


def test_a_node_that_nobody_listens_to_tells_nobody(tmp_path: Path) -> None:
    teller({})()
    assert not list(tmp_path.iterdir())
