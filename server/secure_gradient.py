"""A step of exact Cox training whose gradient the centre sees as one sum."""

from collections.abc import Sequence

import numpy as np

from privacy.secure_sum.statistics import num_words, unpack_statistics
from protocol.addressed import with_secure
from protocol.arrays import Arrays, layout
from protocol.errors import ConfigError, QuorumError
from protocol.payload import TrainRequest
from protocol.stats.gradient_sums import GradientSums
from protocol.summed.gradient import no_gradient, to_arrays
from server.centre import Centre
from server.history import SiteEntry
from server.secure_session import open_session
from server.secure_sum import secure_sum
from server.secure_training import Together
from shared_models.heads.cox_two_phase import RiskSetSums

__all__ = ["NOT_SEEN", "summed_gradient"]

PURPOSE = "train.gradient"
NOT_SEEN = SiteEntry(num_patients=0, num_events=0, weight=1.0, metrics={})


def summed_gradient(
    centre: Centre, sites: Sequence[str], request: TrainRequest, pooled: RiskSetSums
) -> tuple[Arrays, Together]:
    """Return the gradient of the mean negative log partial likelihood of an event, float64.

    Parameters
    ----------
    sites : sequence of str
        Whose risk sets are in ``pooled``; all of them must answer.

    Raises
    ------
    QuorumError
        If one of them left since.
    ConfigError
        If the study has no secure sums.
    """
    section = centre.study.secure_aggregation
    if section is None:
        raise ConfigError("The study has no secure_aggregation, so there is no sum to ask for.")
    shapes = layout(request.arrays)
    blank = {"gradient": no_gradient(shapes)}
    key = (PURPOSE, ",".join(sites))
    if key not in centre.sums:
        nodes = {site: centre.nodes[site] for site in sites}
        opened = open_session(
            centre.grid, nodes, centre.study, PURPOSE, first_round=request.round_index
        )
        centre.sums[key] = opened
    session = centre.sums[key]
    call = session.round_call()
    total = secure_sum(
        session,
        with_secure(request.to_records(), call.to_dict()),
        PURPOSE,
        round_id=call.round_id,
        size=num_words(blank),
        word_bits=64,
        group=f"gradient-{request.round_index}",
    )
    centre.note(PURPOSE, total.active, total.refused)
    if tuple(total.active) != tuple(sorted(sites)):
        gone = sorted(set(sites) - set(total.active))
        raise QuorumError(
            f"{gone[0]} left step {request.round_index} of exact Cox training between its risk "
            "sets and the gradient, which are opened for one set of hospitals only; resume when "
            "it is back."
        )
    found: GradientSums = unpack_statistics(blank, total.words, section.sum_step_bits)["gradient"]
    events = float(pooled.events.sum())
    gradient = {name: np.asarray(a / events) for name, a in to_arrays(found, shapes).items()}
    return gradient, {
        "weight": float(found.num_patients),
        "num_patients": found.num_patients,
        "num_events": found.num_events,
        "metrics": {"loss": found.loss / max(found.num_events, 1)},
    }
