"""Progress bars over what the arms write to their run folders."""

import json
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["Watch", "bars"]

REFRESH_S = 0.3
LABELS = {
    "join": "joining",
    "stage": "next stage",
    "ended": "ended",
    "query.survey": "survey",
    "sort": "sort: rounds",
    "segment": "segment: rounds",
    "query.measure": "measure",
    "prognosis": "prognosis: rounds",
    "evaluate.sort": "validate sorting",
    "evaluate.segment": "validate segmentation",
    "query.scores": "agree risk groups",
    "evaluate.prognosis": "validate prognosis",
    "evaluate.subgroups": "validate by subgroup",
    "design leave-one-hospital-out": "hospitals left out",
    "design hospital-matrix": "hospitals alone",
    "design bootstrap": "bootstrap of the Cox fit",
}


def bars(console: Console) -> Progress:
    """Return plain progress bars: what, how far, how long."""
    return Progress(
        TextColumn("{task.description:<30}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


class Watch:
    """Draws one bar per arm while the arms run, from their ``progress.jsonl``.

    Parameters
    ----------
    folders : dict of str to Path
        Run folder of each arm by name.
    """

    def __init__(self, folders: dict[str, Path], console: Console) -> None:
        self._folders = folders
        self._offset = dict.fromkeys(folders, 0)
        self._progress = Progress(
            TextColumn("{task.fields[arm]:<22}"),
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks = {
            name: self._progress.add_task("waiting", arm=name, total=None) for name in folders
        }
        self._stop = Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        self._progress.stop()

    def finished(self, name: str) -> None:
        """Mark an arm as done."""
        self._read()
        self._progress.update(self._tasks[name], description="done", total=1, completed=1)
        self._progress.stop_task(self._tasks[name])
        self._offset.pop(name, None)

    def _follow(self) -> None:
        while not self._stop.wait(REFRESH_S):
            self._read()

    def _read(self) -> None:
        for name, offset in list(self._offset.items()):
            path = self._folders[name] / "progress.jsonl"
            if not path.is_file():
                continue
            with path.open("rb") as file:
                file.seek(offset)
                text = file.read()
            complete = text[: text.rfind(b"\n") + 1]
            self._offset[name] = offset + len(complete)
            lines = complete.splitlines()
            if lines:
                step = json.loads(lines[-1])
                self._progress.update(
                    self._tasks[name],
                    description=LABELS.get(step["what"], step["what"]),
                    completed=step["done"],
                    total=step["total"],
                )
