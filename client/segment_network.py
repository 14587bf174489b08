"""A segmentation network from its file, as a function from a cine to labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from client.site import SiteConfig
from protocol.config import Segmentation
from shared_models.execution import Execution
from shared_models.inference import predict_labels
from shared_models.networks import build
from shared_models.postprocess import clean_labels
from shared_models.weights import from_arrays, load

__all__ = ["load_segment"]


def load_segment(
    weights: Path, section: Segmentation, config: SiteConfig
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from a cine float32 (2, Z, Y, X) to labels uint8 of the same shape.

    Raises
    ------
    PayloadError
        If the file is no weights, or those of another network than the study's.
    """
    arrays, _ = load(weights)
    model = build(section.network.name, section.network.options)
    from_arrays(model, arrays)
    execution = Execution.resolve(config.device, config.precision, config.threads, config.compile)

    def segment(cine: np.ndarray) -> np.ndarray:
        slices = torch.from_numpy(cine.reshape(-1, 1, *cine.shape[2:]))
        labels = predict_labels(model, slices, execution).numpy()
        return clean_labels(labels.reshape(cine.shape))

    return segment
