"""The weights every hospital starts from: a function of the study alone."""

from protocol.arrays import Arrays
from protocol.config import Study
from protocol.seeds import derive_seed
from shared_models.networks import build
from shared_models.weights import to_arrays

__all__ = ["prognosis_weights", "segmentation_weights"]


def segmentation_weights(study: Study) -> Arrays:
    """Return the segmentation network's initial weights."""
    network = study.segment.network
    seed = derive_seed(study.seed, "segment/initial")
    return to_arrays(build(network.name, network.options, seed=seed))


def prognosis_weights(study: Study) -> Arrays:
    """Return the survival network's initial weights."""
    section = study.prognosis
    seed = derive_seed(study.seed, "prognosis/initial")
    return to_arrays(build(section.network.name, section.network_options(), seed=seed))
