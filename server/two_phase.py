"""Exact Cox training over hospitals: risk sets first, then gradients, then one step of the centre.

A step is two exchanges. The hospitals' sums over risk sets at the global weights are added and sent
back; each hospital answers with its share of the gradient, and the shares add up to the gradient of
the likelihood of all patients together (`shared_models.heads.cox_two_phase`). Divided by the number
of events it is handed to the study's strategy as an optimiser would be: ``fedadam`` (the default),
``fedyogi``, ``fedadagrad`` and ``fedavgm`` with their own ``learning_rate``; ``fedavg`` takes the
plain gradient step of rate 1. The section ``training`` of the study (epochs, batch size, rates) has
no part in it. A step of hospitals of whom one left between the exchanges is begun again.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from protocol import audit
from protocol.arrays import Arrays, check_finite, fingerprint, layout
from protocol.documents import digest
from protocol.errors import PayloadError, TrainingError
from protocol.payload import Refusal, TrainReply, TrainRequest
from protocol.secure_groups import covers_everything
from server.asking import WALL_CLOCK, ask
from server.centre import Centre
from server.checkpoints import Checkpoint, Checkpoints
from server.findings import Findings
from server.history import RoundEntry, SiteEntry, change_norm
from server.hospitals import require_quorum
from server.missed import require_present
from server.progress import RoundProgress
from server.replies import Expected, read_reply
from server.resuming import where_to_go_on
from server.risk_sets import common_step, pooled_sums
from server.secure_gradient import NOT_SEEN, summed_gradient
from server.secure_training import Together
from server.tensorboard import EventFiles
from server.traffic import Metered
from shared_models.heads.cox_two_phase import RiskSetSums
from strategies import Strategy, build

__all__ = ["add_gradients", "train_two_phase"]

Replies = dict[str, TrainReply]
NO_RISK_SETS = Refusal(
    "E506", "It gave no risk sets when asked; the audit log has the code of why not."
)


def train_two_phase(centre: Centre, findings: Findings, arrays: Arrays) -> Arrays:
    """Train the survival network, one step a round, and note its history.

    Raises
    ------
    TrainingError
        If no grid of risk sets serves all hospitals, naming one that is too small for any, or
        nobody had the event.
    QuorumError
        If too few hospitals answered, or one missed more steps in a row than the study allows; the
        last checkpoint stays and the run can be resumed.
    """
    section = centre.study.prognosis
    step_months, too_small = common_step(centre, findings, arrays)
    for site, reason in too_small.items():
        raise TrainingError(f"{site} cannot take part in exact Cox training: {reason}.")
    findings.risk_step = (step_months, {})
    metered = Metered(centre.grid)
    centre = replace(centre, grid=metered)
    strategy = build(section.strategy.name, section.strategy.options)
    checkpoints = Checkpoints(centre.run_dir / "prognosis")
    binding = _binding(centre, findings, step_months)
    # Gradients are float64, and so is what the strategy keeps of them.
    fresh = strategy.init({name: array.astype(np.float64) for name, array in arrays.items()})
    at = where_to_go_on(checkpoints, arrays, fresh, binding)
    arrays, state = at.arrays, at.state
    history: list[RoundEntry] = list(at.history)
    progress = RoundProgress(centre.progress, "prognosis", section.rounds)
    with closing(EventFiles(centre.run_dir, "prognosis")) as events:
        for entry in history:
            events.add(entry)
        for number in range(len(history) + 1, section.rounds + 1):
            at = Checkpoint(number - 1, arrays, state, history, binding)
            arrays, state, entry = _step(centre, findings, step_months, at, strategy)
            entry["bytes_down"], entry["bytes_up"] = metered.taken()
            history.append(entry)
            checkpoints.save(Checkpoint(number, arrays, state, history, binding))
            progress.finished(number)
            events.add(entry)
            require_present(history, centre.study.rounds, f"Step {number} of exact Cox training")
    findings.history["prognosis"] = history
    manifest = {"stage": "prognosis", "study": centre.study.name, "rounds": section.rounds}
    checkpoints.save_final(arrays, manifest | {"binding": binding, "model": fingerprint(arrays)})
    return arrays


def _binding(centre: Centre, findings: Findings, step_months: int) -> str:
    ours = {"name", "seed", "hospitals", "preprocessing", "holdout", "prognosis"}
    study = centre.study.model_dump(mode="json", by_alias=True, include=ours)
    return digest({"study": study, "agreed": findings.agreed, "step_months": step_months})


def _step(
    centre: Centre,
    findings: Findings,
    step_months: int,
    at: Checkpoint,
    strategy: Strategy,
) -> tuple[Arrays, Arrays, RoundEntry]:
    number, arrays, state = at.round_index + 1, at.arrays, at.state
    start, sites = WALL_CLOCK.now(), tuple(centre.study.hospitals.train)
    excluded: dict[str, Refusal] = {}
    together: Together | None = None
    while True:
        pooled, present = pooled_sums(centre, findings, sites, step_months, arrays)
        excluded |= {site: NO_RISK_SETS for site in sites if site not in present}
        asked = {"step_months": step_months, "pooled": pooled.to_dict()}
        agreed = {**findings.agreed, "risk_sets": asked}
        request = TrainRequest(centre.study, "prognosis", number, agreed, arrays)
        if covers_everything(centre.study):
            gradient, together = summed_gradient(centre, present, request, pooled)
            contributed = dict.fromkeys(present, NOT_SEEN)
            break
        replies, refused = _gradients(centre, findings, present, request)
        excluded |= refused
        if not refused:
            gradient = add_gradients([replies[site].arrays for site in present], pooled)
            contributed = {site: _contribution(reply) for site, reply in replies.items()}
            break
        # Their risk sets are in the sums: without them the others' gradients are of no likelihood.
        sites = tuple(replies)
    target = {name: arrays[name].astype(np.float64) - gradient[name] for name in arrays}
    new, state = strategy.step(arrays, target, state)
    new = {name: np.asarray(new[name], dtype=arrays[name].dtype) for name in arrays}
    check_finite(new, f"Step {number} of exact Cox training")
    entry = RoundEntry(
        stage="prognosis",
        round=number,
        seconds=WALL_CLOCK.now() - start,
        sites=contributed,
        excluded={s: {"code": r.code, "sentence": r.sentence} for s, r in excluded.items()},
        update_norm=change_norm(new, arrays),
        fingerprint=fingerprint(new),
    )
    if together is not None:
        entry["together"] = together
    finished = {"stage": "prognosis", "round": number, "model": entry["fingerprint"]}
    audit.append(centre.audit_log, "round.finished", finished)
    return new, state, entry


def add_gradients(parts: Sequence[Arrays], pooled: RiskSetSums) -> Arrays:
    """Return the gradient of the mean negative log partial likelihood of an event, float64.

    Parameters
    ----------
    parts : sequence of Arrays
        The hospitals' shares, in the order in which floats are added.
    pooled : RiskSetSums
        At the same weights; its events are what the sum is divided by.
    """
    events = float(pooled.events.sum())
    return {
        name: np.asarray(sum((part[name] for part in parts[1:]), parts[0][name]) / events)
        for name in parts[0]
    }


def _gradients(
    centre: Centre, findings: Findings, sites: Sequence[str], request: TrainRequest
) -> tuple[Replies, dict[str, Refusal]]:
    arrays = {name: np.zeros(array.shape) for name, array in request.arrays.items()}
    registered = {site: findings.survey[site]["can_train"]["prognosis"] for site in sites}
    limit = int(centre.study.rounds.max_reply_mb * 2**20)
    expected = Expected(layout(arrays), limit, registered)
    nodes = {site: centre.nodes[site] for site in sites}
    replies: Replies = {}
    refused: dict[str, Refusal] = {}
    group = f"gradient-{request.round_index}"
    answers = ask(
        centre.grid, nodes, request.to_records(), "train.gradient", centre.study.rounds, group=group
    )
    for site, outcome in answers:
        reply = outcome if isinstance(outcome, Refusal) else _read(outcome, site, expected)
        detail: dict[str, Any] = {"stage": "prognosis", "round": request.round_index, "site": site}
        if isinstance(reply, Refusal):
            refused[site] = reply
            audit.append(centre.audit_log, "reply.refused", detail | {"code": reply.code})
        else:
            replies[site] = reply
            counted = {"num_patients": reply.num_patients}
            audit.append(centre.audit_log, "reply.accepted", detail | counted)
    what = f"The gradient of step {request.round_index}"
    require_quorum(list(replies), refused, centre.study.rounds.quorum, what)
    return replies, refused


def _read(records: Any, site: str, expected: Expected) -> TrainReply | Refusal:
    try:
        return read_reply(records, site, expected)
    except PayloadError as error:
        return Refusal.of(error)


def _contribution(reply: TrainReply) -> SiteEntry:
    return SiteEntry(
        num_patients=reply.num_patients,
        num_events=reply.num_events,
        weight=float(reply.num_patients),
        metrics=reply.metrics,
    )
