"""Federated rounds: send the model, check and fold the replies, step, keep a checkpoint.

The centre holds four models at most: the global one (which shares its memory with the message
that carries it), the running mean, and two replies that are added together. A server optimiser's
state comes on top, with SCAFFOLD a control variate and its mean change, and where models are packed
on their way to the hospitals, the one that was sent beside the one that was meant.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from protocol import audit as audit_log
from protocol.arrays import Arrays, check_finite, fingerprint, layout
from protocol.compression import Codec
from protocol.config import Study
from protocol.control import control_change
from protocol.errors import ConfigError, MissingModelError, PayloadError, QuorumError
from protocol.payload import Refusal, TrainReply, TrainRequest, with_control_round
from server.asking import WALL_CLOCK, Clock, ask
from server.checkpoints import Checkpoint, Checkpoints
from server.downlink import Broadcast, as_sent, broadcast, sent_of, with_owed
from server.hospitals import require_quorum
from server.missed import require_present
from server.progress import RoundProgress
from server.replies import Expected, read_reply
from server.resuming import binding_of, where_to_go_on
from server.secure_training import SecureTraining, Together, check_summable
from server.traffic import Metered
from server.turns import counted_rounds, last_weights, whose_turn
from strategies import RunningMean, Strategy
from strategies.scaffold import as_state, control_of
from strategies.turnout import Turnout

__all__ = ["RoundEntry", "SiteEntry", "change_norm", "run_rounds"]

Stage = Literal["sort", "segment", "prognosis"]


class SiteEntry(TypedDict):
    """What one hospital contributed to a round."""

    num_patients: int
    num_events: int
    weight: float
    metrics: dict[str, float]


class RoundEntry(TypedDict):
    """One round in the history (JSON values only).

    ``excluded`` maps a hospital to the ``code`` and ``sentence`` of why its reply was left out;
    ``update_norm`` is the Euclidean norm of the change of the global model. Where only a sum was
    seen, ``together`` is what is known of it, and a hospital's entry holds its even share of the
    weight and nothing else. ``bytes_down`` and ``bytes_up`` are of all hospitals together.
    """

    stage: str
    round: int
    seconds: float
    sites: dict[str, SiteEntry]
    excluded: dict[str, dict[str, str]]
    update_norm: float
    fingerprint: str
    bytes_down: NotRequired[int]
    bytes_up: NotRequired[int]
    together: NotRequired[Together]


@dataclass(frozen=True)
class _Run:
    """What does not change from round to round."""

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
        if self.progress is not None:
            self.progress.heard(round_index, site, said)

    def note(self, event: str, detail: dict[str, Any]) -> None:
        if self.audit is not None:
            audit_log.append(self.audit, event, {"stage": self.stage, **detail})

    def asked(self, round_index: int) -> Mapping[str, int]:
        if not self.in_turn:
            return self.nodes
        site = whose_turn(self.nodes, self.study.seed, self.stage, round_index)
        return {site: self.nodes[site]}


@dataclass(frozen=True)
class _Round:
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


def _cast(arrays: Arrays, dtypes: Mapping[str, np.dtype]) -> Arrays:
    """Return the arrays in their initial dtypes; counters are rounded, never truncated."""
    cast = {}
    for name, dtype in dtypes.items():
        array = np.rint(arrays[name]) if dtype.kind in "iu" else arrays[name]
        # numpy turns arrays of no dimension into scalars, which no file format takes.
        cast[name] = np.asarray(array, dtype=dtype)
    return cast


def change_norm(new: Arrays, old: Arrays) -> float:
    """Return the Euclidean norm of ``new - old``, over all arrays together."""
    squares = 0.0
    for name, array in new.items():
        difference = np.asarray(array - old[name])
        squares += float(np.square(difference, out=difference).sum(dtype=np.float64))
    return float(np.sqrt(squares))


def _check(
    run: _Run, at: _Round, site: str, outcome: RecordDict | Refusal
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


def _answers(run: _Run, at: _Round) -> Iterator[tuple[str, RecordDict | Refusal]]:
    """Ask the hospitals; one that lacks the model of the round before is sent this one whole."""
    nodes = run.asked(at.number)
    for site, outcome in _ask(run, at.number, nodes, at.addressed()):
        if isinstance(outcome, Refusal) and outcome.code == MissingModelError.code:
            run.note("request.repeated", {"round": at.number, "site": site})
            yield from _ask(run, at.number, {site: nodes[site]}, at.sent.whole)
        else:
            yield site, outcome
        # Nothing but the mean, which adds two at a time, may keep a reply's arrays alive.
        del outcome


def _ask(
    run: _Run,
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


def _fold(run: _Run, at: _Round) -> tuple[RunningMean, dict[str, SiteEntry], dict[str, Refusal]]:
    """Ask the hospitals and fold the valid replies in the order of their names."""
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
    return mean, sites, refused


def _fold_secure(
    run: _Run, at: _Round, secure: SecureTraining
) -> tuple[RunningMean, dict[str, SiteEntry], dict[str, Refusal], Together]:
    """Have the hospitals' replies summed without seeing one."""
    last = at.history[-1].get("together") if at.history else None
    fold = secure.fold(at.number, at.sent.whole, at.arrays, last)
    share = fold.together["weight"] / len(fold.active)
    sites = {
        site: SiteEntry(num_patients=0, num_events=0, weight=share, metrics={})
        for site in fold.active
    }
    for site in fold.active:
        run.heard(at.number, site)
    for site, refusal in fold.refused.items():
        run.heard(at.number, site, refusal)
        run.note("reply.refused", {"round": at.number, "site": site, "code": refusal.code})
    run.note("sum.opened", {"round": at.number, "sites": fold.active})
    return fold.mean, sites, fold.refused, fold.together


def _send(run: _Run, round_index: int, arrays: Arrays, state: Arrays, last: Arrays) -> Broadcast:
    """Return the request of a round, whose model shares its memory with a whole message."""
    control = control_of(state) or None
    request = TrainRequest(run.study, run.stage, round_index, run.agreed, arrays, control)
    compression = run.study.rounds.compression
    if run.progress is not None:
        run.progress.asked(round_index, run.asked(round_index))
    return broadcast(request, last, Codec.of(compression.down, compression.fraction))


def _round(run: _Run, at: _Round) -> tuple[Arrays, Arrays, RoundEntry]:
    start, arrays = run.clock.now(), at.arrays
    run.grid.taken()
    together: Together | None = None
    if run.secure is None:
        mean, sites, refused = _fold(run, at)
    else:
        mean, sites, refused, together = _fold_secure(run, at, run.secure)
    what = f"Round {at.number} of {run.stage}"
    require_quorum(list(sites), refused, run.study.rounds.quorum, what)
    if mean.total_weight == 0:
        raise QuorumError(
            f"{what}: no hospital has an event, and replies are weighed by events; "
            "set strategy.weight_by to patients."
        )
    turnout = Turnout.of(
        last_weights(at.history), {site: entry["weight"] for site, entry in sites.items()}
    )
    new, state = run.strategy.step(arrays, mean.take(), at.state, turnout)
    if at.sent.packed is not None:
        new = with_owed(new, at.wanted, arrays)
    new = _cast(new, {name: array.dtype for name, array in arrays.items()})
    check_finite(new, f"{what}, after the server's step")
    down, up = run.grid.taken()
    entry = RoundEntry(
        stage=run.stage,
        round=at.number,
        seconds=run.clock.now() - start,
        sites=sites,
        excluded={s: {"code": r.code, "sentence": r.sentence} for s, r in refused.items()},
        update_norm=change_norm(new, arrays),
        fingerprint=fingerprint(new),
        bytes_down=down,
        bytes_up=up,
    )
    if together is not None:
        entry["together"] = together
    # What was sent, and came, stands in the log already (`server.recording`).
    run.note("round.finished", {"round": at.number, "model": entry["fingerprint"]})
    return new, state, entry


def run_rounds(
    grid: Grid,
    nodes: Mapping[str, int],
    *,
    stage: Stage,
    study: Study,
    agreed: dict[str, Any],
    arrays: Arrays,
    strategy: Strategy,
    num_rounds: int,
    weight_by: Literal["patients", "events"],
    max_patients: Mapping[str, int],
    in_turn: bool = False,
    checkpoints: Checkpoints | None = None,
    on_round: Callable[[RoundEntry], None] | None = None,
    audit: Path | None = None,
    progress: RoundProgress | None = None,
    clock: Clock = WALL_CLOCK,
) -> tuple[Arrays, list[RoundEntry]]:
    """Train one network over all rounds and return its final arrays and history.

    The result depends on the study, the initial arrays and the replies alone: not on the order in
    which replies arrive, and not on how often the run was killed and resumed.

    Parameters
    ----------
    nodes : mapping
        Node id by hospital name, from `server.hospitals.join`.
    agreed : dict
        JSON values sent with every request.
    arrays : Arrays
        The initial model. It is not needed after the first round: a caller that keeps no
        reference to it saves its memory.
    strategy : Strategy
        From `strategies.build`.
    weight_by : {"patients", "events"}
        What a reply weighs. One with weight 0 counts for the quorum and is not folded.
    max_patients : mapping
        Patients each hospital registered in the survey.
    in_turn : bool
        A round asks one hospital, as `server.turns.whose_turn` says, and not all.
    checkpoints : Checkpoints, optional
        Where to keep, and from where to resume, this stage.
    on_round : callable, optional
        Called with each entry of the history once its checkpoint is on disk; after a resume first
        with those of the rounds done before.
    audit : Path, optional
        Audit log to append every message to.
    progress : RoundProgress, optional
        Where to tell whom a round asks and whom it has heard.

    Raises
    ------
    QuorumError
        If too few hospitals replied validly, or one missed more rounds in a row than the study
        allows; the last checkpoint stays and the run can be resumed.
    ConfigError
        If a hospital has no registered count, or the checkpoints belong to another study.
    DataError
        If no checkpoint is intact.
    PayloadError
        If the initial arrays cannot be sent, or the server's step is not finite.
    """
    unregistered = sorted(set(nodes) - set(max_patients))
    if unregistered:
        raise ConfigError(
            f"{unregistered[0]} has no patient count from the survey; run the survey stage first."
        )
    metered = Metered(grid)
    state, compression = strategy.init(arrays), study.rounds.compression
    expected = Expected(
        layout(arrays),
        int(study.rounds.max_reply_mb * 2**20),
        dict(max_patients),
        controlled=bool(control_of(state)),
        codec=Codec.of(compression.up, compression.fraction),
    )
    secure = None
    if study.secure_aggregation is not None:
        check_summable(state, in_turn)
        secure = SecureTraining(metered, nodes, study, stage, weight_by, max_patients, clock)
    run = _Run(
        metered,
        nodes,
        stage,
        study,
        agreed,
        strategy,
        weight_by,
        in_turn,
        expected,
        audit,
        clock,
        secure,
        progress,
    )
    binding = binding_of(study, stage, agreed, strategy, weight_by, nodes)
    packs = compression.down != "none"
    at = where_to_go_on(checkpoints, arrays, state | (as_sent(arrays) if packs else {}), binding)
    arrays, (state, last) = at.arrays, sent_of(at.state)
    history: list[RoundEntry] = list(at.history)
    del at
    if on_round is not None:
        for entry in history:
            on_round(entry)
    for number in range(len(history) + 1, num_rounds + 1):
        sent = _send(run, number, arrays, state, last)
        if sent.packed is None:
            arrays = sent.model
        arrays, state, entry = _round(run, _Round(number, sent, arrays, state, history))
        last = sent.model if packs else {}
        del sent
        history.append(entry)
        if checkpoints is not None:
            kept = state | as_sent(last)
            checkpoints.save(Checkpoint(number, arrays, kept, history, binding))
        if on_round is not None:
            on_round(entry)
        require_present(history, study.rounds, f"Round {number} of {stage}")
    if checkpoints is not None:
        manifest = {"stage": stage, "study": study.name, "rounds": num_rounds, "binding": binding}
        checkpoints.save_final(arrays, manifest | {"model": fingerprint(arrays)})
    return arrays, history
