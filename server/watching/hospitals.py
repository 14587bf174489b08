"""What each hospital is doing now: a pure function of whom the centre asked and whom it heard."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from protocol.config import Study
from server.missed import MissedRounds
from server.progress import JOINING
from server.watching.state import HospitalState, Phase, RoundState

__all__ = ["OVERDUE", "Step", "hospital_states", "is_overdue", "newest_step"]

# No reply in time; still at work on an earlier request.
LATE_CODES = frozenset({"E501", "E505"})
# A round that takes this much longer than its stage's rounds took so far is waiting for someone.
OVERDUE = 2.0
LEAST = timedelta(seconds=60)


@dataclass(frozen=True)
class Step:
    """What is going on: whom the centre asked last, and whom it has heard since.

    Attributes
    ----------
    began : datetime or None
        When it asked, UTC.
    heard : dict
        By hospital the code and sentence of its refusal, both empty for a reply that counts.
    joined : frozenset of str
        Who has said who it is since the run was last started.
    """

    what: str = ""
    round: int | None = None
    done: int = 0
    total: int = 0
    began: datetime | None = None
    asked: tuple[str, ...] = ()
    heard: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    joined: frozenset[str] = frozenset()

    @property
    def awaited(self) -> tuple[str, ...]:
        """Who was asked and not heard; replies are taken in this order, whichever comes first."""
        return tuple(site for site in self.asked if site not in self.heard)


def newest_step(lines: Iterable[Mapping[str, Any]]) -> Step:
    """Return the step under way from the lines of ``progress.jsonl``."""
    step = Step()
    for line in lines:
        what, site = line.get("what", ""), line.get("site")
        if "asked" in line:
            step = Step(
                what=what,
                round=line.get("round"),
                total=line.get("total", 0),
                began=datetime.fromisoformat(line["time"]) if "time" in line else None,
                asked=tuple(line["asked"]),
                # A run that is started again has to be joined again.
                joined=frozenset() if what == JOINING else step.joined,
            )
        elif site is not None and what == step.what:
            said = (line.get("code", ""), line.get("sentence", ""))
            step = replace(step, heard={**step.heard, site: said})
            if what == JOINING:
                step = replace(step, joined=step.joined | {site})
        if what == step.what:
            step = replace(step, done=line.get("done", 0), total=line.get("total", 0))
    return step


def is_overdue(step: Step, rounds: Sequence[RoundState], now: datetime) -> bool:
    """Return whether a round takes much longer than those of its stage took so far."""
    before = [each.seconds for each in rounds if each.stage == step.what]
    if step.began is None or step.round is None or not before:
        return False
    return now - step.began > max(timedelta(seconds=OVERDUE * median(before)), LEAST)


def hospital_states(
    study: Study | None,
    step: Step,
    missed: Mapping[str, MissedRounds],
    last_rounds: Mapping[str, int],
    *,
    overdue: bool,
    over: bool,
    finished: bool,
    revoked: frozenset[str] = frozenset(),
) -> tuple[HospitalState, ...]:
    """Return what each hospital of the study is doing, in the study's order.

    Parameters
    ----------
    missed : mapping
        Of the newest stage, who is missing now and since when.
    last_rounds : mapping
        The last round in which each was counted.
    overdue : bool
        Whether the round takes too long.
    over : bool
        Whether the run has ended, be it for now.
    finished : bool
        Whether it has ended well; ``missed`` are then those that were missing to the end.
    """
    roles = _roles(study, step)
    states = []
    for name, role in roles.items():
        spell = missed.get(name)
        phase, code, sentence = _phase(
            name, step, spell, overdue=overdue, over=over, finished=finished
        )
        if name in revoked:
            phase, code, sentence = "no longer a member", "", ""
        states.append(
            HospitalState(
                name=name,
                role=role,
                phase=phase,
                code=code,
                sentence=sentence,
                missed_in_a_row=spell.num_rounds if spell else 0,
                last_round=last_rounds.get(name),
            )
        )
    return tuple(states)


def _roles(study: Study | None, step: Step) -> dict[str, str]:
    if study is None:
        return dict.fromkeys((*step.asked, *sorted(step.joined - set(step.asked))), "")
    hospitals = study.hospitals
    parts = {"train": hospitals.train, "internal": hospitals.internal}
    parts["external"] = hospitals.external
    return {site: role for role, sites in parts.items() for site in sites}


def _phase(
    name: str,
    step: Step,
    spell: MissedRounds | None,
    *,
    overdue: bool,
    over: bool,
    finished: bool,
) -> tuple[Phase, str, str]:
    code, sentence = step.heard.get(name, ("", ""))
    if finished and spell is not None:
        return "missing", spell.code, spell.sentence
    if code:
        return ("late" if code in LATE_CODES else "left out"), code, sentence
    if name in step.heard and not over and step.what != JOINING:
        return "answered", "", ""
    if name in step.awaited and not over and step.what != JOINING:
        if overdue and name == step.awaited[0]:
            return "late", "", "It takes much longer than rounds took so far."
        return "working", "", ""
    if spell is not None:
        return "left out", spell.code, spell.sentence
    if name not in step.joined:
        return "not joined", "", ""
    return ("took part" if over else "joined"), "", ""
