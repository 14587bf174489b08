"""What is wanted of a run and what became of it: ``run.json`` in its folder, safe from crashes.

Two processes write it: the command that starts, stops or resumes a run, and the supervisor that
sees to it. Each change reads, decides and writes under a lock.
"""

import fcntl
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from deployment.private_files import write_atomic
from protocol.documents import check_keys, decode, encode
from protocol.errors import DataError, PayloadError

__all__ = ["State", "change", "read", "runs"]

Wanted = Literal["running", "stopped", "finished", "failed"]
FILE = "run.json"
LOCK = ".run.lock"


@dataclass(frozen=True)
class State:
    """``run.json``.

    Attributes
    ----------
    state : {"running", "stopped", "finished", "failed"}
        The first two are what the coordinator wants; the last two are what came of it.
    flower_run : int
        Flower's id of the attempt that is under way, 0 where none is.
    attempts : int
        How often the run was submitted to Flower.
    kills : tuple of str
        When an attempt ended without a word since the coordinator last started it, ISO 8601.
    sentence : str
        Why it failed.
    """

    state: Wanted = "running"
    flower_run: int = 0
    attempts: int = 0
    kills: tuple[str, ...] = ()
    sentence: str = ""


def read(folder: Path) -> State:
    """Return the state of a run.

    Raises
    ------
    DataError
        If its file is not one that `change` wrote.
    """
    where = f"{folder.name}/{FILE}"
    try:
        document = decode((folder / FILE).read_text(encoding="utf-8"), where)
        check_keys(document, frozenset(State.__dataclass_fields__), where)
        state = State(**document | {"kills": tuple(document["kills"])})
    except (OSError, PayloadError, TypeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{where} cannot be read; restore it, or start the study in a new run."
        ) from error
    if state.state not in get_args(Wanted):
        raise DataError(f"{where} has no known state; restore it, or start a new run.")
    return state


def change(folder: Path, how: Callable[[State], State]) -> State:
    """Replace the state of a run by a function of it, and return the new one.

    ``how`` gets the first state where there is no file yet.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        old = read(folder) if (folder / FILE).exists() else State()
        new = how(old)
        if new != old or not (folder / FILE).exists():
            text = encode(asdict(new), "The state of a run")
            write_atomic(folder / FILE, text.encode() + b"\n")
        return new
    finally:
        os.close(descriptor)


def runs(folder: Path) -> list[Path]:
    """Return the folders of all runs, by study and then by number."""

    def place(path: Path) -> tuple[str, int]:
        study, _, number = path.name.rpartition("-")
        return study, int(number) if number.isdigit() else 0

    return sorted((path.parent for path in folder.glob(f"*/{FILE}")), key=place)
