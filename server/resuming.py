"""Where a training run goes on after it was killed: at its newest checkpoint, if it is its own."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from protocol.arrays import Arrays, check_layout, layout
from protocol.config import Study
from protocol.documents import digest
from protocol.errors import ConfigError
from server.checkpoints import Checkpoint, Checkpoints
from strategies import Strategy

__all__ = ["binding_of", "where_to_go_on"]


def binding_of(
    study: Study,
    stage: str,
    agreed: dict[str, Any],
    strategy: Strategy,
    weight_by: str,
    sites: Iterable[str],
) -> str:
    """Return the hash of all that a checkpoint depends on.

    Deadlines and the quorum are not part of it: they are what an operator changes before resuming.
    """
    ours = {"name", "seed", "hospitals", "preprocessing", "holdout", stage}
    if study.secure_aggregation is not None:
        ours.add("secure_aggregation")
    bound = {
        "study": study.model_dump(mode="json", by_alias=True, include=ours),
        "stage": stage,
        "agreed": agreed,
        "strategy": repr(strategy),
        "weight_by": weight_by,
        "sites": sorted(sites),
    }
    compression = study.rounds.compression
    if compression.is_used:
        bound["compression"] = compression.model_dump()
    return digest(bound)


def where_to_go_on(
    checkpoints: Checkpoints | None, arrays: Arrays, state: Arrays, binding: str
) -> Checkpoint:
    """Return the newest intact checkpoint, or the start as round 0.

    Parameters
    ----------
    arrays, state : Arrays
        The initial model and the strategy's first state.

    Raises
    ------
    ConfigError
        If the checkpoints belong to another study.
    DataError
        If no checkpoint is intact.
    PayloadError
        If the model or the state is not of this network.
    """
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
    check_layout(found.state, layout(state), "The checkpoint's strategy")
    # safetensors sorts by dtype and name; the model keeps the order of its network.
    return replace(
        found,
        arrays={name: found.arrays[name] for name in arrays},
        state={name: found.state[name] for name in state},
    )
