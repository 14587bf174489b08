"""What the dashboard's buttons do in a server's directory: what ``stop`` and ``resume`` do."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from server.consortium import SETTINGS_FILE, Consortium, load
from server.run_folders import resume_run, stop_run

__all__ = ["Presses", "presses_for"]

# As `concors-server resume` does by itself.
LIFETIME = timedelta(days=180)


class Presses:
    """Stops and resumes the runs of one consortium; both raise a `ConcorsError` where they cannot.

    Parameters
    ----------
    consortium : Consortium
        Whose runs.
    """

    def __init__(self, consortium: Consortium) -> None:
        self._consortium = consortium

    def stop(self, run_dir: Path) -> None:
        """Have a run stopped; it can be resumed."""
        stop_run(self._consortium, run_dir)

    def resume(self, run_dir: Path) -> None:
        """Have a run taken up again from its checkpoints."""
        resume_run(self._consortium, run_dir, now=datetime.now(UTC), lifetime=LIFETIME)


def presses_for(folder: Path) -> Presses | None:
    """Return what the buttons do; None for the folder of a run by itself, which has no server."""
    return Presses(load(folder)) if (folder / SETTINGS_FILE).is_file() else None
