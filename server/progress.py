"""What the run is doing now, one JSON line a step, for whoever watches the run's folder."""

import json
from pathlib import Path

__all__ = ["Progress"]


class Progress:
    """Appends ``{"what", "done", "total", "note"}`` to ``progress.jsonl`` in the run's folder.

    A file, because the server may run in another process than the one that draws the bars: under
    Ray, under a SuperLink, or as one of several arms of a simulation.
    """

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / "progress.jsonl"

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Record that ``done`` of ``total`` steps of ``what`` are finished."""
        line = json.dumps({"what": what, "done": done, "total": total, "note": note})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
