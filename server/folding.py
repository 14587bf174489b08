"""One round's replies: asked for, checked, and folded into their mean while they come.

Nothing but the mean, which adds two at a time, may keep a reply's arrays alive.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flwr.app import RecordDict

from protocol import audit as audit_log
from protocol.addressed import with_control_round
from protocol.arrays import Arrays
from protocol.config import Study
from protocol.control import control_change
from protocol.errors import MissingModelError, PayloadError
from protocol.payload import Refusal, TrainReply
from server.asking import Clock, ask
from server.downlink import Broadcast
from server.history import RoundEntry, SiteEntry, Stage
from server.progress import RoundProgress
from server.replies import Expected, read_reply
from server.secure_training import SecureTraining, Together
from server.traffic import Metered
from server.turns import counted_rounds, whose_turn
from strategies import RunningMean, Strategy
from strategies.scaffold import as_state, control_of

__all__ = ["Folded", "RoundStart", "Training", "fold"]


@dataclass(frozen=True)
class Training:
    """What does not change from round to round of a stage."""

    grid: Metered
    nodes: Mapping[str, int]
    stage: Stage
    study: Study
    agreed: dict[str, Any]
    strategy: Strategy
    weight_by: Literal["patients", "events"]
    in_turn: bool
    expected: Expected
    audit: Path | None
    clock: Clock
    secure: SecureTraining | None = None
    progress: RoundProgress | None = None
    # Requests that are still unanswered, by hospital: whoever is late is not asked meanwhile.
    late: dict[str, str] = field(default_factory=dict)

    def heard(self, round_index: int, site: str, said: Refusal | None = None) -> None:
        """Show that a hospital's reply is there, or why it is left out."""
        if self.progress is not None:
            self.progress.heard(round_index, site, said)

    def note(self, event: str, detail: dict[str, Any]) -> None:
        """Append a line about this stage to the run's log."""
        if self.audit is not None:
            audit_log.append(self.audit, event, {"stage": self.stage, **detail})

    def asked(self, round_index: int) -> Mapping[str, int]:
        """Return the nodes that a round asks, by hospital."""
        if not self.in_turn:
            return self.nodes
        site = whose_turn(self.nodes, self.study.seed, self.stage, round_index)
        return {site: self.nodes[site]}


@dataclass(frozen=True)
class RoundStart:
    """What one round starts from.

    Attributes
    ----------
    wanted : Arrays
        The model that was meant; ``arrays``, the one the hospitals have, differs where it was
        packed.
    """

    number: int
    sent: Broadcast
    wanted: Arrays
    state: Arrays
    history: list[RoundEntry]

    @property
    def arrays(self) -> Arrays:
        """The model that the hospitals train from."""
        return self.sent.model

    def addressed(self) -> RecordDict | Callable[[str], RecordDict]:
        """Return the request of all hospitals, or of each where they differ."""
        if self.sent.request.control is not None:
            counted = counted_rounds(self.history)
            return lambda site: with_control_round(self.sent.whole, counted.get(site, 0))
        packed = self.sent.packed
        if packed is None:
            return self.sent.whole
        # Who replied last time has that model; who did not may, and is asked with the whole one.
        holding = self.history[-1]["sites"]
        return lambda site: packed if site in holding else self.sent.whole


@dataclass(frozen=True)
class Folded:
    """A round's mean, what each hospital contributed to it, and who was left out.

    Attributes
    ----------
    together : Together, optional
        What is known of all hospitals together, where only their sum was seen.
    """

    mean: RunningMean
    sites: dict[str, SiteEntry]
    refused: dict[str, Refusal]
    together: Together | None = None


def _check(
    run: Training, at: RoundStart, site: str, outcome: RecordDict | Refusal
) -> tuple[TrainReply, Arrays] | Refusal:
    """Return a valid reply and what it adds to the mean, or why it is left out."""
    if isinstance(outcome, Refusal):
        return outcome
    try:
        reply = read_reply(outcome, site, run.expected, at.arrays)
        if reply.rate_sum is None:
            return reply, reply.arrays
        control, where = control_of(at.state), f"The control variate of {site}"
        change = control_change(at.arrays, reply.arrays, control, reply.rate_sum, where)
        return reply, reply.arrays | as_state(change)
    except PayloadError as error:
        return Refusal.of(error)


def _answers(run: Training, at: RoundStart) -> Iterator[tuple[str, RecordDict | Refusal]]:
    """Ask the hospitals; one that lacks the model of the round before is sent this one whole."""
    nodes = run.asked(at.number)
    for site, outcome in _ask(run, at.number, nodes, at.addressed()):
        if isinstance(outcome, Refusal) and outcome.code == MissingModelError.code:
            run.note("request.repeated", {"round": at.number, "site": site})
            yield from _ask(run, at.number, {site: nodes[site]}, at.sent.whole)
        else:
            yield site, outcome
        del outcome


def _ask(
    run: Training,
    round_index: int,
    nodes: Mapping[str, int],
    request: RecordDict | Callable[[str], RecordDict],
) -> Iterator[tuple[str, RecordDict | Refusal]]:
    return ask(
        run.grid,
        nodes,
        request,
        f"train.{run.stage}",
        run.study.rounds,
        group=f"{run.stage}-{round_index}",
        clock=run.clock,
        late=run.late,
    )


def fold(run: Training, at: RoundStart) -> Folded:
    """Ask the hospitals and fold the valid replies in the order of their names."""
    return _fold_one_by_one(run, at) if run.secure is None else _fold_secure(run, at, run.secure)


def _fold_one_by_one(run: Training, at: RoundStart) -> Folded:
    mean, round_index = RunningMean(), at.number
    sites: dict[str, SiteEntry] = {}
    refused: dict[str, Refusal] = {}
    for site, outcome in _answers(run, at):
        checked = _check(run, at, site, outcome)
        # The message must not keep its arrays alive longer than the mean needs them.
        del outcome
        if isinstance(checked, Refusal):
            refused[site] = checked
            run.heard(round_index, site, checked)
            run.note("reply.refused", {"round": round_index, "site": site, "code": checked.code})
            continue
        reply, counted = checked
        weight = float(reply.num_patients if run.weight_by == "patients" else reply.num_events)
        if weight > 0:
            mean.add(counted, weight)
        sites[site] = SiteEntry(
            num_patients=reply.num_patients,
            num_events=reply.num_events,
            weight=weight,
            metrics=reply.metrics,
        )
        run.heard(round_index, site)
        detail = {"round": round_index, "site": site, "num_patients": reply.num_patients}
        run.note("reply.accepted", detail)
        del reply, counted, checked
    return Folded(mean, sites, refused)


def _fold_secure(run: Training, at: RoundStart, secure: SecureTraining) -> Folded:
    """Have the hospitals' replies summed without seeing one."""
    last = at.history[-1].get("together") if at.history else None
    summed = secure.fold(at.number, at.sent.whole, at.arrays, last)
    share = summed.together["weight"] / len(summed.active)
    sites = {
        site: SiteEntry(num_patients=0, num_events=0, weight=share, metrics={})
        for site in summed.active
    }
    for site in summed.active:
        run.heard(at.number, site)
    for site, refusal in summed.refused.items():
        run.heard(at.number, site, refusal)
        run.note("reply.refused", {"round": at.number, "site": site, "code": refusal.code})
    run.note("sum.opened", {"round": at.number, "sites": summed.active})
    return Folded(summed.mean, sites, summed.refused, summed.together)
