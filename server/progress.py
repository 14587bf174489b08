"""What the run is doing now, one JSON line a step, for whoever watches the run's folder."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protocol.errors import ConcorsError
from protocol.refusal import Refusal

__all__ = ["ENDED", "JOINING", "STAGE", "Progress", "RoundProgress"]

JOINING, STAGE, ENDED = "join", "stage", "ended"
# What a failure of the program itself is called: its text may quote a path.
BROKEN = Refusal("E000", "The program itself failed; see the log of the server's process.")
STOPPED = Refusal("E000", "The run was stopped; resume it to go on after its last full round.")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Progress:
    """Appends lines to ``progress.jsonl`` in the run's folder.

    Every line has ``what``, ``done``, ``total``, ``note`` and ``time`` (UTC). The first one of a
    question or a round lists in ``asked`` whom it went to; each that follows tells by ``site`` whom
    the centre heard, with ``code`` and ``sentence`` where the reply does not count. The last one is
    `ENDED`. A file, because the server may run in another process than the one that draws the
    bars: under Ray, under a SuperLink, or as one of several arms of a simulation.
    """

    def __init__(self, run_dir: Path, now: Callable[[], datetime] = _utc_now) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / "progress.jsonl"
        self._now = now

    def step(self, what: str, done: int, total: int, note: str = "", **more: Any) -> None:
        """Record that ``done`` of ``total`` steps of ``what`` are finished."""
        line = {"what": what, "done": done, "total": total, "note": note} | more
        text = json.dumps(line | {"time": self._now().isoformat(timespec="seconds")})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def asked(self, what: str, done: int, total: int, sites: Iterable[str], **more: Any) -> None:
        """Record whom something goes to now."""
        self.step(what, done, total, asked=sorted(sites), **more)

    def heard(
        self, what: str, done: int, total: int, site: str, said: Refusal | None, **more: Any
    ) -> None:
        """Record that the centre heard a hospital; ``said`` is why its reply does not count."""
        why = {} if said is None else {"code": said.code, "sentence": said.sentence}
        self.step(what, done, total, site, site=site, **why, **more)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Record how a run ends, whichever way it does (killed outright, it says nothing)."""
        try:
            yield
        except ConcorsError as error:
            self._end("failed", Refusal.of(error))
            raise
        except Exception:
            self._end("failed", BROKEN)
            raise
        except BaseException:
            self._end("stopped", STOPPED)
            raise
        self._end("finished", None)

    def _end(self, how: str, why: Refusal | None) -> None:
        told = {} if why is None else {"code": why.code, "sentence": why.sentence}
        self.step(ENDED, 1, 1, how, **told)


@dataclass(frozen=True)
class RoundProgress:
    """The progress of one stage of training; ``total`` is its number of rounds."""

    progress: Progress
    stage: str
    total: int

    def asked(self, number: int, sites: Iterable[str]) -> None:
        """Record whom round ``number``, from 1, goes to."""
        self.progress.asked(self.stage, number - 1, self.total, sites, round=number)

    def heard(self, number: int, site: str, said: Refusal | None = None) -> None:
        """Record that the centre has a hospital's reply of a round, or why it does not count."""
        self.progress.heard(self.stage, number - 1, self.total, site, said, round=number)

    def finished(self, number: int) -> None:
        """Record that the checkpoint of a round is on disk."""
        self.progress.step(self.stage, number, self.total)
