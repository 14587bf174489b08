"""Keeps one SuperLink going: started again when it dies or falls silent, with growing patience."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from deployment.flower import variables
from deployment.processes import Processes
from protocol.errors import EngineError
from server.consortium import Consortium

__all__ = ["SuperLinkKeeper"]

# Seconds to wait before the next start, after one, two, ... ends within a minute.
BACK_OFF_S = (0.0, 1.0, 5.0, 15.0, 30.0, 60.0)
FORGIVEN_S = 60.0
# A SuperLink that answers nothing for so long is ended, s; loading a large database takes some.
SILENCE_S = 90.0


class SuperLinkKeeper:
    """The SuperLink's process.

    Parameters
    ----------
    own_port : int
        Port of its door for this machine.
    secret : Path
        File of the secret it shares with the supervisor.
    say : callable
        Tells the operator one line.
    """

    name = "superlink"

    def __init__(
        self,
        consortium: Consortium,
        processes: Processes,
        own_port: int,
        secret: Path,
        say: Callable[[str], None],
    ) -> None:
        self._consortium = consortium
        self._processes = processes
        self._say = say
        self._command = [sys.executable, "-m", "server.superlink", str(consortium.root)]
        self._command += ["--own-port", str(own_port), "--secret", str(secret)]
        self._ends: list[float] = []
        self._not_before = 0.0
        self._heard = 0.0
        self._was_up = False

    def look(self) -> bool:
        """Start it if it is time to; return whether it runs, though it may not answer yet.

        Raises
        ------
        EngineError
            If it ended before it ever answered: then waiting mends nothing.
        """
        now = time.monotonic()
        if self.name not in self._processes.names():
            if now < self._not_before:
                return False
            self._start(now)
        code = self._processes.exit_code(self.name)
        if code is None:
            return True
        self._bury(code, now)
        return False

    def answered(self) -> None:
        """Note that it answered just now."""
        if not self._was_up:
            self._say(f"{self._consortium.settings.name}: the server is up")
        self._was_up, self._heard = True, time.monotonic()

    def silent(self) -> None:
        """Note that it did not answer; end it when it has not for too long."""
        if time.monotonic() - self._heard > SILENCE_S:
            self._say("the SuperLink has not answered for a while and is ended")
            self._consortium.note("silent", what="superlink")
            self._processes.end([self.name], patience_s=2.0)

    def _start(self, now: float) -> None:
        home = self._consortium.root / "running" / "superlink"
        # Of its own accord it writes a line for each of our questions, for weeks.
        quiet = variables(home) | {"FLWR_LOG_LEVEL": "WARNING"}
        self._processes.start(self.name, self._command, variables=quiet, cwd=self._consortium.root)
        self._heard = now
        if self._ends:
            self._consortium.note("restarted", what="superlink")
            self._say("the SuperLink is started again")

    def _bury(self, code: int, now: float) -> None:
        words = self._processes.last_words(self.name)
        self._processes.end([self.name])
        if not self._was_up:
            raise EngineError(
                f"The SuperLink ended by itself with code {code} ({words}); the rest is in "
                f"{self._processes.log(self.name)}."
            )
        self._consortium.note("killed", what="superlink", exit_code=code)
        self._say(f"the SuperLink ended with code {code}")
        self._ends = [*(end for end in self._ends if now - end < FORGIVEN_S), now]
        self._not_before = now + BACK_OFF_S[min(len(self._ends), len(BACK_OFF_S)) - 1]
