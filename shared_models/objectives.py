"""What is minimised: the loss of a network for each record of a batch of named tensors.

The network may give bf16; the losses raise it, and are computed in fp32.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from shared_models.heads import HEADS, Head
from shared_models.losses.segmentation import dice_cross_entropy

__all__ = ["prognosis_objective", "risk_set_objective", "segmentation_objective"]

Network = Callable[..., Tensor]


def segmentation_objective(model: Network, batch: Mapping[str, Tensor]) -> Tensor:
    """Return Dice + cross-entropy, (B,), of ``images`` (B, 1, Y, X) and ``labels`` (B, Y, X)."""
    return dice_cross_entropy(model(batch["images"]), batch["labels"])


def prognosis_objective(
    model: Network, batch: Mapping[str, Tensor], head: Head = HEADS["logistic_hazard"]
) -> Tensor:
    """Return the negative log-likelihood of each patient, (B,), by a survival head.

    Parameters
    ----------
    model : callable
        ``shared_models.prognosis.Prognosis`` or a network with the same inputs, whose outputs are
        the head's.
    batch : mapping of str to Tensor
        ``images`` (B, C, Z, Y, X), ``slice_present`` (B, Z), ``tabular`` and ``missing`` (B, P),
        and what the head's ``targets`` are called, (B,) each; images may be absent where the
        network takes none.
    head : Head
        One of ``shared_models.heads.HEADS``. One that is no sum over patients compares those of
        this batch, so its batch must not be split.
    """
    outputs = model(
        batch.get("images"), batch.get("slice_present"), batch["tabular"], batch["missing"]
    )
    return head.nll(outputs, batch)


def risk_set_objective(
    model: Network, batch: Mapping[str, Tensor], head: Head, normaliser: float
) -> Tensor:
    """Return what a Cox head minimises, (B,), so that its mean is the sum over the normaliser.

    Parameters
    ----------
    model, batch
        As in `prognosis_objective`; the batch must not be split.
    head : Head
        One of ``shared_models.heads.COX_HEADS``.
    normaliser : float
        > 0, the same at all hospitals, such as the events of an average one. Divided by its own
        events, a hospital with few would pull as hard as one with many, and one without would give
        NaN.
    """
    terms = prognosis_objective(model, batch, head)
    return terms * (len(terms) / normaliser)
