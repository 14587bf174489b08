"""What there is to know of a run at one moment, as one frozen value."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = [
    "EXIT_CODES",
    "Curve",
    "Figure",
    "HospitalState",
    "LogLine",
    "Phase",
    "RoundState",
    "RunState",
    "StageState",
    "Status",
]

Status = Literal[
    "waiting",
    "running",
    "stopped",
    "failed",
    "finished",
    "finished with missing hospitals",
]
Phase = Literal[
    "not joined",
    "joined",
    "working",
    "late",
    "answered",
    "took part",
    "left out",
    "missing",
    "no longer a member",
]

EXIT_CODES: dict[Status, int] = {"failed": 1, "finished with missing hospitals": 2}
"""What a command says to the shell about a run; 0 for every other status."""


@dataclass(frozen=True)
class HospitalState:
    """One hospital now.

    Attributes
    ----------
    role : str
        ``train``, ``internal`` or ``external``; empty where the run has not said.
    phase : str
        ``late``: it has not answered for much longer than rounds took so far, or not in time;
        ``left out``: it answered and that does not count; ``missing``: it was when training ended.
    code, sentence : str
        Why it is left out, late or missing; empty otherwise.
    missed_in_a_row : int
        Rounds it missed without one in between that counted.
    last_round : int or None
        The last round of the newest stage in which its reply counted.
    epsilon, delta : float or None
        What it has spent on this stage's training, as far as it let that be seen.
    """

    name: str
    role: str
    phase: Phase
    code: str = ""
    sentence: str = ""
    missed_in_a_row: int = 0
    last_round: int | None = None
    epsilon: float | None = None
    delta: float | None = None


@dataclass(frozen=True)
class RoundState:
    """One finished round.

    Attributes
    ----------
    seconds : float
        From the request to the checkpoint, s.
    counted : int
        Hospitals whose reply is in the model.
    left_out : tuple of str
    mb_down, mb_up : float or None
        What went to all hospitals together and came back, MB (2**20 bytes); None if not measured.
    update_norm : float
        Euclidean norm of the model's change.
    """

    stage: str
    number: int
    seconds: float
    counted: int
    left_out: tuple[str, ...]
    mb_down: float | None
    mb_up: float | None
    update_norm: float


@dataclass(frozen=True)
class Curve:
    """One metric of one hospital (or of all together) by round; None where it sent nothing."""

    stage: str
    metric: str
    hospital: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Figure:
    """How good a finished model is at one hospital.

    Attributes
    ----------
    name : str
        ``Dice, LV cavity`` or ``C-index``; higher is better, 1 is perfect.
    """

    name: str
    hospital: str
    value: float


@dataclass(frozen=True)
class StageState:
    """One stage of the study: ``ahead``, ``now`` or ``done``."""

    name: str
    state: Literal["ahead", "now", "done"]


@dataclass(frozen=True)
class LogLine:
    """One event; ``time`` in UTC, ISO 8601."""

    time: str
    text: str


@dataclass(frozen=True)
class RunState:
    """A run at one moment.

    Attributes
    ----------
    name : str
        Of the study.
    sentence : str
        What is going on, or how it ended, for a reader in a hurry.
    code : str
        Of the error that ended it; empty otherwise.
    done, total : int
        Steps of what is going on.
    began, updated : str
        When the step under way began and when the run last wrote anything; UTC, ISO 8601, empty
        where unknown.
    rounds : tuple of RoundState
        Of all stages, oldest first.
    epsilon, delta : float or None
        What the training cost every hospital, where only sums were seen.
    has_report : bool
        Whether ``report.html`` lies in the run's folder.
    """

    name: str
    status: Status
    sentence: str
    code: str = ""
    done: int = 0
    total: int = 0
    began: str = ""
    updated: str = ""
    stages: tuple[StageState, ...] = ()
    hospitals: tuple[HospitalState, ...] = ()
    rounds: tuple[RoundState, ...] = ()
    curves: tuple[Curve, ...] = ()
    figures: tuple[Figure, ...] = ()
    epsilon: float | None = None
    delta: float | None = None
    log: tuple[LogLine, ...] = ()
    has_report: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen any more unless someone resumes it."""
        return self.status not in ("waiting", "running")

    @property
    def exit_code(self) -> int:
        """What a command says to the shell: 1 if it failed, 2 if a hospital was missing, else 0."""
        return EXIT_CODES.get(self.status, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)
