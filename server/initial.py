"""The weights every hospital starts from: a function of the study and of what was surveyed."""

from collections.abc import Sequence

from protocol.arrays import Arrays
from protocol.config import Study
from protocol.seeds import derive_seed
from shared_models.heads import choose_head
from shared_models.networks import build
from shared_models.weights import to_arrays

__all__ = ["begins_from_survey", "prognosis_weights", "segmentation_weights", "sorting_weights"]


def sorting_weights(study: Study) -> Arrays:
    """Return the sorting network's initial weights."""
    network = study.sort.network
    seed = derive_seed(study.seed, "sort/initial")
    return to_arrays(build(network.name, network.options, seed=seed))


def segmentation_weights(study: Study) -> Arrays:
    """Return the segmentation network's initial weights."""
    network = study.segment.network
    seed = derive_seed(study.seed, "segment/initial")
    return to_arrays(build(network.name, network.options, seed=seed))


def begins_from_survey(study: Study) -> bool:
    """Whether the survival network's weights are only known once the hazards are surveyed."""
    own = (study.prognosis.network.name, study.prognosis.head) == ("prognosis", "logistic_hazard")
    return not own


def prognosis_weights(
    study: Study, hazards: Sequence[float] = (), cuts_months: Sequence[float] = ()
) -> Arrays:
    """Return the survival network's initial weights.

    Parameters
    ----------
    hazards : sequence of float
        Probability of the event in each interval of the grid among those who reach it, as surveyed;
        every patient's first prediction, unless the network's options say another. The network
        ``prognosis`` with the head ``logistic_hazard`` keeps its ``baseline_hazard``. Empty before
        a survey: the sizes are right, the first prediction is not.
    cuts_months : sequence of float
        Ends of the intervals, months.

    Raises
    ------
    ConfigError
        If the network or the head is unknown, or an option does not fit.
    """
    section = study.prognosis
    options = section.network_options()
    if hazards and begins_from_survey(study):
        # Zeros can be far from any patient: half of them with the event in the first interval.
        start = choose_head(section.head).start_outputs(hazards, cuts_months)
        options = {"start": list(start), **options}
    seed = derive_seed(study.seed, "prognosis/initial")
    return to_arrays(build(section.network.name, options, seed=seed))
