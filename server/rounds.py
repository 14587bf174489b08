"""Federated rounds: send the model, check and fold the replies, step, keep a checkpoint.

The centre holds four models at most: the global one (which shares its memory with the message
that carries it), the running mean, and two replies that are added together. A server optimiser's
state comes on top, with SCAFFOLD a control variate and its mean change, and where models are packed
on their way to the hospitals, the one that was sent beside the one that was meant.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flwr.serverapp import Grid

from protocol.arrays import Arrays, check_finite, fingerprint, layout
from protocol.compression import Codec
from protocol.config import Study
from protocol.errors import ConfigError, QuorumError
from protocol.payload import TrainRequest
from server.asking import WALL_CLOCK, Clock
from server.checkpoints import Checkpoint, Checkpoints
from server.downlink import Broadcast, as_sent, broadcast, sent_of, with_owed
from server.folding import RoundStart, Training, fold
from server.history import RoundEntry, Stage, change_norm
from server.hospitals import require_quorum
from server.missed import require_present
from server.progress import RoundProgress
from server.replies import Expected
from server.resuming import binding_of, where_to_go_on
from server.secure_training import SecureTraining, check_summable
from server.traffic import Metered
from server.turns import last_weights
from strategies import Strategy
from strategies.scaffold import control_of
from strategies.turnout import Turnout

__all__ = ["run_rounds"]


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
    _require_registered(nodes, max_patients)
    state, metered = strategy.init(arrays), Metered(grid)
    secure = None
    if study.secure_aggregation is not None:
        check_summable(state, in_turn)
        secure = SecureTraining(metered, nodes, study, stage, weight_by, max_patients, clock)
    run = Training(
        metered,
        nodes,
        stage,
        study,
        agreed,
        strategy,
        weight_by,
        in_turn,
        _expected(max_patients, arrays, state, study),
        audit,
        clock,
        secure,
        progress,
    )
    binding = binding_of(study, stage, agreed, strategy, weight_by, nodes)
    packs = study.rounds.compression.down != "none"
    at = where_to_go_on(checkpoints, arrays, state | (as_sent(arrays) if packs else {}), binding)
    arrays, (state, last) = at.arrays, sent_of(at.state)
    history = list(at.history)
    del at
    tell = on_round or (lambda entry: None)
    for entry in history:
        tell(entry)
    for number in range(len(history) + 1, num_rounds + 1):
        sent = _send(run, number, arrays, state, last)
        arrays = sent.model if sent.packed is None else arrays
        arrays, state, entry = _round(run, RoundStart(number, sent, arrays, state, history))
        last = sent.model if packs else {}
        del sent
        history.append(entry)
        if checkpoints is not None:
            checkpoints.save(Checkpoint(number, arrays, state | as_sent(last), history, binding))
        tell(entry)
        require_present(history, study.rounds, f"Round {number} of {stage}")
    if checkpoints is not None:
        manifest = {"stage": stage, "study": study.name, "rounds": num_rounds, "binding": binding}
        checkpoints.save_final(arrays, manifest | {"model": fingerprint(arrays)})
    return arrays, history


def _require_registered(nodes: Mapping[str, int], max_patients: Mapping[str, int]) -> None:
    unregistered = sorted(set(nodes) - set(max_patients))
    if unregistered:
        raise ConfigError(
            f"{unregistered[0]} has no patient count from the survey; run the survey stage first."
        )


def _expected(
    max_patients: Mapping[str, int], arrays: Arrays, state: Arrays, study: Study
) -> Expected:
    """Return what is expected of every reply."""
    compression = study.rounds.compression
    return Expected(
        layout(arrays),
        int(study.rounds.max_reply_mb * 2**20),
        dict(max_patients),
        controlled=bool(control_of(state)),
        codec=Codec.of(compression.up, compression.fraction),
    )


def _send(
    run: Training, round_index: int, arrays: Arrays, state: Arrays, last: Arrays
) -> Broadcast:
    """Return the request of a round, whose model shares its memory with a whole message."""
    control = control_of(state) or None
    request = TrainRequest(run.study, run.stage, round_index, run.agreed, arrays, control)
    compression = run.study.rounds.compression
    if run.progress is not None:
        run.progress.asked(round_index, run.asked(round_index))
    return broadcast(request, last, Codec.of(compression.down, compression.fraction))


def _round(run: Training, at: RoundStart) -> tuple[Arrays, Arrays, RoundEntry]:
    start, arrays = run.clock.now(), at.arrays
    run.grid.taken()
    folded = fold(run, at)
    mean, sites, refused = folded.mean, folded.sites, folded.refused
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
    if folded.together is not None:
        entry["together"] = folded.together
    # What was sent, and came, stands in the log already (`server.recording`).
    run.note("round.finished", {"round": at.number, "model": entry["fingerprint"]})
    return new, state, entry


def _cast(arrays: Arrays, dtypes: Mapping[str, np.dtype]) -> Arrays:
    """Return the arrays in their initial dtypes; counters are rounded, never truncated."""
    cast = {}
    for name, dtype in dtypes.items():
        array = np.rint(arrays[name]) if dtype.kind in "iu" else arrays[name]
        # numpy turns arrays of no dimension into scalars, which no file format takes.
        cast[name] = np.asarray(array, dtype=dtype)
    return cast
