"""What is minimised: the loss of a network for each record of a batch of named tensors."""

from collections.abc import Mapping

from torch import Tensor, nn

from shared_models.heads import logistic_hazard
from shared_models.losses.segmentation import dice_cross_entropy

__all__ = ["prognosis_objective", "segmentation_objective"]


def segmentation_objective(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return Dice + cross-entropy, (B,), of ``images`` (B, 1, Y, X) and ``labels`` (B, Y, X)."""
    return dice_cross_entropy(model(batch["images"]), batch["labels"])


def prognosis_objective(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the negative LogisticHazard log-likelihood of each patient, (B,).

    Parameters
    ----------
    model : nn.Module
        ``shared_models.prognosis.Prognosis`` or a network with the same inputs.
    batch : mapping of str to Tensor
        ``images`` (B, C, Z, Y, X), ``slice_present`` (B, Z), ``tabular`` and ``missing`` (B, P),
        ``interval`` and ``event`` (B,).
    """
    logits = model(batch["images"], batch["slice_present"], batch["tabular"], batch["missing"])
    return logistic_hazard.nll(logits, batch["interval"], batch["event"])
