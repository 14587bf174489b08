"""How the gatekeeper learns that the SuperNode has a message: a file that grows by a byte.

Asking the SuperNode instead, often enough not to lose time, costs more than a round does.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["VARIABLE", "Arrivals", "teller"]

VARIABLE = "CONCORS_ARRIVALS"
LOOK_S = 0.02


class Arrivals:
    """What the gatekeeper sees of it.

    Parameters
    ----------
    path : Path
        The file; emptied.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(b"")
        self._seen = 0

    def wait(self, timeout_s: float, check: Callable[[], None]) -> None:
        """Return when a message has arrived since the last time, or after so many seconds.

        ``check`` is called again and again meanwhile; what it raises ends the waiting.
        """
        end = time.monotonic() + timeout_s
        while (newest := self._path.stat().st_size) == self._seen:
            if time.monotonic() >= end:
                return
            check()
            time.sleep(LOOK_S)
        self._seen = newest


def teller(variables: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Return what the SuperNode calls when a message has arrived."""
    path = variables.get(VARIABLE)

    def tell() -> None:
        if path:
            with Path(path).open("ab") as file:
                file.write(b".")

    return tell
