"""Bounds of bytes, time and speed, on a clock that a test turns."""

from typing import Any

import pytest

from client.pacs.settings import PacsSettings
from client.pacs.watch import Stop, Watch
from protocol.errors import TransferError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def make_watch(**limits: Any) -> tuple[Watch, Clock]:
    clock = Clock()
    settings = PacsSettings(protocol="c-get", host="archive", port=104, **limits)
    return Watch(settings, clock, clock.sleep), clock


def test_bytes_come_no_faster_than_the_limit_and_waiting_is_not_silence() -> None:
    watch, clock = make_watch(megabytes_per_second=0.5, silence_timeout_s=2.0, study_timeout_s=10.0)
    with watch.transfer(10**9):
        for _ in range(100):
            watch.count(100_000)
            assert watch.overdue() is None
    # 10 MB at half a MB a second.
    assert clock.now == pytest.approx(20.0)


def test_files_come_no_faster_than_the_limit() -> None:
    watch, clock = make_watch(files_per_second=4.0)
    with watch.transfer():
        for _ in range(8):
            watch.file_done()
    assert clock.now == pytest.approx(2.0)


def test_silence_and_the_deadline_are_at_the_limit() -> None:
    watch, clock = make_watch(silence_timeout_s=3.0, study_timeout_s=10.0)
    watch.deadline, watch.last = 10.0, 0.0
    clock.now = 3.0
    assert watch.overdue() is None
    clock.now = 3.01
    assert "silent for 3 s" in str(watch.overdue())
    watch.last = clock.now = 10.0
    assert watch.overdue() is None
    watch.last = clock.now = 10.01
    assert "more than 10 s for one study" in str(watch.overdue())


def test_a_study_may_have_its_bytes_and_not_one_more() -> None:
    watch, _ = make_watch()
    with watch.transfer(1000):
        watch.count(1000)
    with pytest.raises(TransferError, match="more than"), watch.transfer(1000):
        watch.count(1000)
        with pytest.raises(Stop):
            watch.count(1)
    assert watch.final


def test_a_files_bytes_are_counted_until_it_is_whole() -> None:
    watch, _ = make_watch(max_file_megabytes=1)
    with watch.transfer(10**9):
        for _ in range(50):
            watch.count(1_000_000)
            watch.settle(1_000_000)
    with pytest.raises(TransferError, match="a file of more than 1 MB"), watch.transfer(10**9):
        watch.count(1_000_000)
        watch.count(16_385)
