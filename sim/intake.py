"""Read every hospital once, several at a time, so that the arms start from tensors."""

from collections.abc import Mapping
from concurrent.futures import as_completed
from pathlib import Path

from rich.console import Console

from client.cohort import load_cohort
from protocol.config import Preprocessing, Study
from sim.progress import bars
from sim.workers import worker_processes

__all__ = ["read_all"]


def _read(site: Path, preprocessing: Preprocessing) -> int:
    return len(load_cohort(site, preprocessing).patients)


def read_all(sites: Mapping[str, Path], study: Study, processes: int, console: Console) -> None:
    """Fill every hospital's cache for the study's preprocessing.

    Raises
    ------
    ConcorsError
        The first hospital's error, if one cannot be read.
    """
    with (
        bars(console) as progress,
        worker_processes(processes) as pool,
    ):
        task = progress.add_task("reading hospitals", total=len(sites))
        readings = {
            pool.submit(_read, site, study.preprocessing): name for name, site in sites.items()
        }
        for reading in as_completed(readings):
            count = reading.result()
            progress.console.print(f"{readings[reading]}: {count} usable patients")
            progress.advance(task)
