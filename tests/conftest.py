"""Fixtures every test may use."""

import gc
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from client.cohort import Patient, load_cohort
from sim.config import PhantomConfig
from sim.hospitals import make_hospitals
from sim.simulation import load_simulation

# The same examples in every run, and no clock: a busy machine must not fail a law.
settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

REPOSITORY = Path(__file__).resolve().parents[1]

# What is imported and found now stays to the end, and the collector would go through it again and
# again: for a fifth of the time it takes to find the tests.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Collect garbage in the process that only hands out tests: it finds none itself."""
    if config.pluginmanager.hasplugin("dsession"):
        gc.enable()


def pytest_collection_finish() -> None:
    """Leave what is there by now out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first, so that no worker is left with one at the end.

    One file of those that share hospitals comes before all; the others follow the slow ones, by
    when the hospitals are usually made.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    sharing = [i.path for i in items if "quick_hospitals" in getattr(i, "fixturenames", ())]
    turns = dict.fromkeys(sharing, 2) | dict.fromkeys(sharing[:1], 0)
    items.sort(key=lambda item: turns.get(item.path, 1 if item.path in slow else 3))


WHOLE = ("siemens", "philips", "ge", "canon")


@pytest.fixture(scope="session")
def whole_examinations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small hospital a vendor, with every sequence and view, and the truth of each series."""
    out = tmp_path_factory.mktemp("whole")
    images = {
        "cine_frames": 8,
        "matrix_px": 64,
        "fov_mm": [215.0, 240.0],
        "sublevels": 1,
        "all_sequences": True,
    }
    sites = [{"name": name, "num_patients": 2, "vendors": {name: 1}} for name in WHOLE]
    config = PhantomConfig.model_validate({"hospitals": sites, "images": images})
    make_hospitals(config, out, seed=7)
    return out


@pytest.fixture(scope="session")
def quick_hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom hospitals of ``configs/quick.yaml``, their images read once.

    Made by one worker for all of them: copy a hospital before anything is written to it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "quick-hospitals"
    with FileLock(f"{out}.lock"):
        if not out.is_dir():
            study, simulation = load_simulation(REPOSITORY / "configs" / "quick.yaml")
            assert simulation.phantom is not None
            made = shared / "quick-hospitals-being-made"
            shutil.rmtree(made, ignore_errors=True)
            make_hospitals(simulation.phantom, made, study.seed, workers=1)
            for name in study.hospitals.all:
                load_cohort(made / name, study.preprocessing)
            made.rename(out)
    return out


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that lies beside the project; tests that need it skip without it."""
    folder = Path(os.environ.get("CONCORS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CONCORS_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def make_patient() -> Callable[..., Patient]:
    """A factory of small patients without content, for what only looks at their description."""

    def make(
        index: int, *, masks: bool = False, event: int = 0, shape: tuple[int, int, int] = (1, 4, 4)
    ) -> Patient:
        cine = np.zeros((2, *shape), np.float32)
        return Patient(
            key=f"{index:016x}",
            cine=cine,
            labels=np.zeros(cine.shape, np.uint8) if masks else None,
            lge=None,
            lge_present=np.zeros(shape[0], bool),
            spacing_mm=(10.0, 1.5, 1.5),
            vendor="siemens",
            field_strength_t=1.5,
            months=12.0,
            event=event,
            covariates={},
        )

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
        self.seen = {}

    def look(self) -> None:
        """Record the descendants there are now."""
        stats = {int(p.name): _stat(int(p.name)) for p in Path("/proc").glob("[0-9]*")}
        family, grew = {self.root}, True
        while grew:
            more = {pid for pid, stat in stats.items() if stat and stat[1] in family} - family
            family, grew = family | more, bool(more)
        for pid in family - {self.root} - self.before:
            self.seen[pid] = stats[pid][2]  # type: ignore[index]

    def listen(self) -> None:
        """Record where those that were seen listen now."""
        listening = _listening()
        for pid in self.alive():
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
        # The kernel takes longer over its table of sockets than over all processes, so a door that
        # is open for less than a second may be missed.
        for each in cycle(range(4)):
            if stop.wait(0.25):
                return
            for watched in watches:
                watched.look()
                if each == 0:
                    watched.listen()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()

    def start(root: int) -> Watch:
        watches.append(Watch(root))
        return watches[-1]

    yield start
    stop.set()
    thread.join()
    assert [pid for each in watches for pid in each.wait_until_gone(20)] == []
