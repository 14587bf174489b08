"""What every program of Flower's is started with, whoever starts it."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "HOST",
    "KEPT_MEMORY",
    "ONE_AT_A_TIME",
    "QUIET",
    "environment",
    "first_line",
    "no_proxy",
    "program",
    "variables",
]

HOST = "127.0.0.1"

# A hospital's machine calls nobody but its own server: no telemetry, no update check.
QUIET: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# One piece of a message (`protocol.parcels`) on its way at a time: two would share a slow line, and
# neither arrive in its time.
ONE_AT_A_TIME: Mapping[str, str] = {
    "FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES": "1",
    "FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PULLS": "1",
}


# Messages are blocks of some MB, made and dropped at every step. As it comes, the C library asks
# the kernel for each and gives it back, which costs more than what is done with them.
KEPT_MEMORY: Mapping[str, str] = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of this process, and put back every variable afterwards."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def first_line(text: str) -> str:
    """Return the first line of a text that is not empty, or a placeholder."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason was given")


def no_proxy() -> dict[str, str]:
    """Return variables that keep a proxy out of what this machine says to itself."""
    exempt = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    hosts = ",".join(part for part in (HOST, "localhost", exempt) if part)
    return {"NO_PROXY": hosts, "no_proxy": hosts}


def program(name: str) -> str:
    """Return the path of a program of this environment, such as ``flower-supernode``."""
    return str(Path(sys.executable).parent / name)


def variables(home: Path, without: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return a child's environment: ours, quiet, with this environment's programs first.

    Parameters
    ----------
    home : Path
        Flower's own directory for this party; made if absent.
    without : frozenset of str
        Variables of ours that the child must not see.
    """
    home.mkdir(parents=True, exist_ok=True)
    return {
        **{name: value for name, value in os.environ.items() if name not in without},
        **QUIET,
        **KEPT_MEMORY,
        "FLWR_HOME": str(home),
        # Seconds between two looks for work, each of which costs the server a request; Flower: 1 s.
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        # Flower starts its programs by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        **no_proxy(),
        "PYTHONUNBUFFERED": "1",
    }
