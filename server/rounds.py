"""Federated rounds: send the model, check and fold the replies, step, keep a checkpoint.

The centre holds three models at most: the global one (which shares its memory with the message
that carries it), the running mean, and the one reply being folded. A server optimiser's state
comes on top.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from protocol import audit as audit_log
from protocol.arrays import Arrays, check_finite, check_layout, fingerprint, layout
from protocol.config import Study
from protocol.documents import digest
from protocol.errors import ConfigError, PayloadError, QuorumError
from protocol.payload import MAX_MODEL_BYTES, Refusal, TrainReply, TrainRequest
from protocol.records import from_array_record
from server.checkpoints import Checkpoint, Checkpoints
from server.hospitals import WALL_CLOCK, Clock, ask, require_quorum
from server.replies import Expected, read_reply
from strategies import RunningMean, Strategy

__all__ = ["RoundEntry", "SiteEntry", "change_norm", "resume", "run_rounds"]

Stage = Literal["segment", "prognosis"]


class SiteEntry(TypedDict):
    """What one hospital contributed to a round."""

    num_patients: int
    num_events: int
    weight: float
    metrics: dict[str, float]


class RoundEntry(TypedDict):
    """One round in the history (JSON values only).

    ``excluded`` maps a hospital to the ``code`` and ``sentence`` of why its reply was left out;
    ``update_norm`` is the Euclidean norm of the change of the global model.
    """

    stage: str
    round: int
    seconds: float
    sites: dict[str, SiteEntry]
    excluded: dict[str, dict[str, str]]
    update_norm: float
    fingerprint: str


@dataclass(frozen=True)
class _Run:
    """What does not change from round to round."""

    grid: Grid
    nodes: Mapping[str, int]
    stage: Stage
    study: Study
    agreed: dict[str, Any]
    strategy: Strategy
    weight_by: Literal["patients", "events"]
    expected: Expected
    audit: Path | None
    clock: Clock

    def note(self, event: str, detail: dict[str, Any]) -> None:
        if self.audit is not None:
            audit_log.append(self.audit, event, {"stage": self.stage, **detail})


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


def _check(run: _Run, site: str, outcome: RecordDict | Refusal) -> TrainReply | Refusal:
    if isinstance(outcome, Refusal):
        return outcome
    try:
        return read_reply(outcome, site, run.expected)
    except PayloadError as error:
        return Refusal.of(error)


def _fold(
    run: _Run, round_index: int, request: RecordDict
) -> tuple[RunningMean, dict[str, SiteEntry], dict[str, Refusal]]:
    """Ask every hospital and fold the valid replies in the order of their names."""
    mean = RunningMean()
    sites: dict[str, SiteEntry] = {}
    refused: dict[str, Refusal] = {}
    replies = ask(
        run.grid,
        run.nodes,
        request,
        f"train.{run.stage}",
        run.study.rounds,
        group=f"{run.stage}-{round_index}",
        clock=run.clock,
    )
    for site, outcome in replies:
        reply = _check(run, site, outcome)
        # The message must not keep its arrays alive while the next reply is being pulled.
        del outcome
        if isinstance(reply, Refusal):
            refused[site] = reply
            run.note("reply.refused", {"round": round_index, "site": site, "code": reply.code})
            continue
        weight = float(reply.num_patients if run.weight_by == "patients" else reply.num_events)
        if weight > 0:
            mean.add(reply.arrays, weight)
        sites[site] = SiteEntry(
            num_patients=reply.num_patients,
            num_events=reply.num_events,
            weight=weight,
            metrics=reply.metrics,
        )
        if run.audit is not None:
            detail = {"round": round_index, "site": site, "model": fingerprint(reply.arrays)}
            run.note("reply.accepted", detail | {"num_patients": reply.num_patients})
        del reply
    return mean, sites, refused


def _send(run: _Run, round_index: int, arrays: Arrays) -> tuple[RecordDict, Arrays]:
    """Return the request of a round, and the model as a view of it: there is one copy of both."""
    request = TrainRequest(run.study, run.stage, round_index, run.agreed, arrays).to_records()
    arrays = from_array_record(request["arrays"], "The global model", MAX_MODEL_BYTES)
    if run.audit is not None:
        detail = {"round": round_index, "sites": sorted(run.nodes)}
        run.note("request.sent", detail | {"model": fingerprint(arrays)})
    return request, arrays


def _round(
    run: _Run, round_index: int, request: RecordDict, arrays: Arrays, state: Arrays
) -> tuple[Arrays, Arrays, RoundEntry]:
    start = run.clock.now()
    mean, sites, refused = _fold(run, round_index, request)
    what = f"Round {round_index} of {run.stage}"
    require_quorum(list(sites), refused, run.study.rounds.quorum, what)
    if mean.total_weight == 0:
        raise QuorumError(
            f"{what}: no hospital has an event, and replies are weighed by events; "
            "set strategy.weight_by to patients."
        )
    new, state = run.strategy.step(arrays, mean.take(), state)
    new = _cast(new, {name: array.dtype for name, array in arrays.items()})
    check_finite(new, f"{what}, after the server's step")
    entry = RoundEntry(
        stage=run.stage,
        round=round_index,
        seconds=run.clock.now() - start,
        sites=sites,
        excluded={s: {"code": r.code, "sentence": r.sentence} for s, r in refused.items()},
        update_norm=change_norm(new, arrays),
        fingerprint=fingerprint(new),
    )
    return new, state, entry


def _binding(run: _Run) -> str:
    """Return the hash of all that a checkpoint depends on.

    Deadlines and the quorum are not part of it: they are what an operator changes before resuming.
    """
    ours = {"name", "seed", "hospitals", "preprocessing", "holdout", run.stage}
    return digest(
        {
            "study": run.study.model_dump(mode="json", by_alias=True, include=ours),
            "stage": run.stage,
            "agreed": run.agreed,
            "strategy": repr(run.strategy),
            "weight_by": run.weight_by,
            "sites": sorted(run.nodes),
        }
    )


def resume(
    checkpoints: Checkpoints | None, arrays: Arrays, state: Arrays, binding: str
) -> Checkpoint:
    """Return where to go on: the newest intact checkpoint, or the start as round 0."""
    start = Checkpoint(0, arrays, state, [], binding)
    found = checkpoints.latest() if checkpoints is not None else None
    if found is None:
        return start
    if found.binding != binding:
        raise ConfigError(
            "The checkpoints in this run directory belong to another study, strategy or survey; "
            "restore its study file, or start in a new run directory."
        )
    check_layout(found.arrays, layout(arrays), "The checkpoint")
    # safetensors sorts by dtype and name; the model keeps the order of its network.
    return replace(found, arrays={name: found.arrays[name] for name in arrays})


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
    checkpoints: Checkpoints | None = None,
    on_round: Callable[[RoundEntry], None] | None = None,
    audit: Path | None = None,
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
    checkpoints : Checkpoints, optional
        Where to keep, and from where to resume, this stage.
    on_round : callable, optional
        Called with each entry of the history once its checkpoint is on disk; after a resume first
        with those of the rounds done before.
    audit : Path, optional
        Audit log to append every message to.

    Raises
    ------
    QuorumError
        If too few hospitals replied validly; the last checkpoint stays and the run can be resumed.
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
    expected = Expected(layout(arrays), int(study.rounds.max_reply_mb * 2**20), dict(max_patients))
    run = _Run(grid, nodes, stage, study, agreed, strategy, weight_by, expected, audit, clock)
    binding = _binding(run)
    at = resume(checkpoints, arrays, strategy.init(arrays), binding)
    arrays, state = at.arrays, at.state
    history: list[RoundEntry] = list(at.history)
    del at
    if on_round is not None:
        for entry in history:
            on_round(entry)
    for number in range(len(history) + 1, num_rounds + 1):
        request, arrays = _send(run, number, arrays)
        arrays, state, entry = _round(run, number, request, arrays, state)
        del request
        history.append(entry)
        if checkpoints is not None:
            checkpoints.save(Checkpoint(number, arrays, state, history, binding))
        if on_round is not None:
            on_round(entry)
    if checkpoints is not None:
        manifest = {"stage": stage, "study": study.name, "rounds": num_rounds, "binding": binding}
        checkpoints.save_final(arrays, manifest | {"model": fingerprint(arrays)})
    return arrays, history
