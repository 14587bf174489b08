"""A whole consortium on one machine, as its operators would run it: commands, TLS, real processes.

What systemd does on a real machine (start a command again when it ends) a thread does here.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from deployment.flower import program
from deployment.processes import free_ports
from protocol.config import load_study
from protocol.documents import digest
from server.run_state import State, read
from sim.secret import write_public_secret

__all__ = [
    "Unit",
    "consortium",
    "finished",
    "processes_of",
    "study_hash",
    "wait_for",
    "write_table_hospital",
]

RESTART_S = 0.5
Wrap = Callable[[list[str]], list[str]]


def write_table_hospital(site: Path, seed: int, num_patients: int = 60) -> Path:
    """Write a hospital of patients with two covariates, a time and an event."""
    site.mkdir(parents=True)
    # Keys decide the folds: the same hospital elsewhere is to give the same weights.
    write_public_secret(site, seed)
    rng = np.random.default_rng(seed)
    age, fibrosis = rng.normal(60, 10, num_patients), rng.normal(0, 1, num_patients)
    time_m = rng.exponential(40 * np.exp(-0.05 * (age - 60) - 0.8 * fibrosis))
    end = rng.uniform(6, 72, num_patients)
    rows = ["id,months,event,age,fibrosis"]
    for i in range(num_patients):
        months, event = min(time_m[i], end[i]) + 0.01, int(time_m[i] <= end[i])
        rows.append(f"P{i},{months:.4f},{event},{age[i]:.3f},{fibrosis[i]:.3f}")
    (site / "outcomes.csv").write_text("\n".join(rows) + "\n")
    content = {
        "name": site.name,
        # Several hospitals share a few cores: threads of one would wait for the others.
        "threads": 1,
        "outcomes": {
            "path": "outcomes.csv",
            "patient": "id",
            "months": "months",
            "event": "event",
        },
        "covariates": {
            "age": {"column": "age", "unit": "years"},
            "fibrosis": {"column": "fibrosis", "unit": "as is"},
        },
    }
    (site / "site.yaml").write_text(yaml.safe_dump(content))
    return site


def study_hash(study_file: Path) -> str:
    """Return the hash under which hospitals approve a study."""
    return digest(load_study(study_file).model_dump(mode="json", by_alias=True))


class Unit:
    """A command that is started again whenever it ends, until it is stopped."""

    def __init__(self, command: Sequence[str], log: Path, cwd: Path) -> None:
        self._command, self._log, self._cwd = list(command), log, cwd
        self._stopped = threading.Event()
        self.process = self._start()
        self.starts = 1
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, cwd=self._cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def _watch(self) -> None:
        while not self._stopped.is_set():
            if self.process.poll() is None:
                time.sleep(0.1)
            elif not self._stopped.wait(RESTART_S):
                self.process = self._start()
                self.starts += 1

    def stop(self) -> None:
        """Ask the command to end, and make it."""
        self._stopped.set()
        self._thread.join()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def processes_of(unit: Unit, words: str) -> list[psutil.Process]:
    """Return the unit's processes whose command line holds some words."""
    found = []
    with suppress(psutil.Error):
        for process in psutil.Process(unit.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    found.append(process)
    return found


def _run(command: Sequence[str], cwd: Path) -> str:
    done = subprocess.run(list(command), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def consortium(
    root: Path,
    sites: Sequence[Path],
    study_file: Path,
    *,
    address: str | None = None,
    settings: Mapping[str, Any] | None = None,
    on_centre: Wrap = list,
    on_host: Callable[[int, list[str]], list[str]] = lambda _, command: command,
) -> Iterator[tuple[Path, Unit, list[Unit]]]:
    """Make a consortium with its commands, start both sides, and stop them at the end.

    Parameters
    ----------
    sites : sequence of Path
        Hospitals; each approves the study beforehand, in its policy.
    address : str, optional
        Where hospitals find the server; a free port of this machine by default.
    settings : mapping, optional
        Changes to the consortium's settings.
    on_centre, on_host : callable
        Turn a command line into one that runs on the centre, or on host k.

    Yields
    ------
    tuple of Path, Unit, list of Unit
        The server's directory, its unit, and those of the hospitals.
    """
    root.mkdir(parents=True, exist_ok=True)
    address = address or f"localhost:{free_ports(1)[0]}"
    server, client = program("concors-server"), program("concors-client")
    centre = root / "centre"
    _run([server, "init", str(centre), "--name", "bench", "--address", address], root)
    if settings:
        path = next(centre.glob("*.yaml"))
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))
    for site in sites:
        (site / "policy.yaml").write_text(
            yaml.safe_dump({"studies": {"approved": [study_hash(study_file)]}})
        )
        _run([client, "request", str(site)], root)
        _run([server, "admit", str(centre), f"{site.name}.request.json"], root)
        _run([client, "join", str(site), f"welcome-{site.name}.json"], root)
    units: list[Unit] = []
    try:
        for k, site in enumerate(sites):
            command = on_host(k, [client, "start", str(site)])
            units.append(Unit(command, root / f"{site.name}.log", root))
        unit = Unit(on_centre([server, "start", str(centre)]), root / "centre.log", root)
        units.append(unit)
        yield centre, unit, units[:-1]
    finally:
        for each in reversed(units):
            each.stop()


def wait_for(what: Callable[[], bool], timeout_s: float, name: str) -> None:
    """Wait until something holds.

    Raises
    ------
    RuntimeError
        If it does not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} did not happen within {timeout_s:g} s")
        time.sleep(0.05)


def finished(run: Path) -> State | None:
    """Return the state of a run that has ended, else None."""
    with suppress(OSError):
        state = read(run)
        return None if state.state == "running" else state
    return None


if __name__ == "__main__":
    sys.exit("This is used by chaos.py, networks.py and deployed_overhead.py; run one of those.")
