"""A consortium of empty hospitals, and an eye on every process an engine starts."""

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # flwr imports typer, which asks click for names that click is about to drop.
    warnings.filterwarnings("ignore", r"'click\.", DeprecationWarning)
    import flwr.app  # noqa: F401

APPS = Path(__file__).resolve().parents[1] / "apps"


@dataclass(frozen=True)
class Consortium:
    """The arguments of an engine; the study file of the small apps holds the number of sites."""

    study_file: Path
    run_dir: Path
    sites: list[Path]


@pytest.fixture
def consortium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Consortium]:
    """Make n hospitals, with the small apps importable here and in every child process."""
    monkeypatch.syspath_prepend(str(APPS))
    monkeypatch.setenv("PYTHONPATH", str(APPS))

    def make(num_sites: int) -> Consortium:
        sites = [tmp_path / f"hospital {number}" for number in range(num_sites)]
        for site in sites:
            site.mkdir()
        study = tmp_path / "study.yaml"
        study.write_text(str(num_sites))
        return Consortium(study, tmp_path / "run", sites)

    return make


def _stat(pid: int) -> tuple[str, int, int] | None:
    """Return state, parent and start time of a process, or None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[1]), int(fields[19])


def _listening() -> dict[str, str]:
    """Return socket inode -> address in hexadecimal, of every listening TCP socket."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A":
                found[cells[9]] = cells[1].split(":")[0]
    return found


@dataclass
class Watch:
    """Every descendant of one process that was ever seen, and the addresses they listened on."""

    root: int
    seen: dict[int, int] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    # What ran before the watch began (multiprocessing's tracker of an earlier test) is not ours.
    before: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.look()
        self.before = set(self.seen)
        self.seen, self.addresses = {}, set()

    def look(self) -> None:
        """Record the descendants there are now."""
        stats = {int(p.name): _stat(int(p.name)) for p in Path("/proc").glob("[0-9]*")}
        family, grew = {self.root}, True
        while grew:
            more = {pid for pid, stat in stats.items() if stat and stat[1] in family} - family
            family, grew = family | more, bool(more)
        listening = _listening()
        for pid in family - {self.root} - self.before:
            self.seen[pid] = stats[pid][2]  # type: ignore[index]
            self.addresses |= {listening[i] for i in _sockets(pid) if i in listening}

    def alive(self) -> list[int]:
        """Return which of them still run (one that only waits to be buried does not)."""
        now = {pid: _stat(pid) for pid in self.seen}
        return [p for p, s in now.items() if s and s[2] == self.seen[p] and s[0] not in "ZX"]

    def wait_until_gone(self, timeout_s: float) -> list[int]:
        """Wait until none runs; return those that do after the time."""
        deadline = time.monotonic() + timeout_s
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.alive()


def _sockets(pid: int) -> set[str]:
    try:
        links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.fixture
def loopback() -> set[str]:
    """The loopback addresses as the kernel writes them."""
    return LOOPBACK


@pytest.fixture
def watch() -> Iterator[Callable[[int], Watch]]:
    """Watch a process; at the end, make sure that nothing it started is left."""
    if sys.platform != "linux":
        pytest.skip("processes are watched through /proc, which only Linux has")
    stop = threading.Event()
    watches: list[Watch] = []

    def sample() -> None:
        while not stop.wait(0.25):
            for each in watches:
                each.look()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()

    def start(root: int) -> Watch:
        watches.append(Watch(root))
        return watches[-1]

    yield start
    stop.set()
    thread.join()
    assert [pid for each in watches for pid in each.wait_until_gone(20)] == []
