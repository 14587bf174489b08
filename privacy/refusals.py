"""What cannot be trained under differential privacy, and why.

Clipping bounds what a patient changes only if their gradient depends on nobody else, and only what
is noised is private. What breaks either is refused before anything is computed or charged, each
with its reason. Losses and targets are not asked what they are but tried: on made-up patients, each
must get alone what they get in company.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from protocol.errors import PrivacyError

__all__ = [
    "REASONS",
    "refusal",
    "require_private_model",
    "require_separable",
    "require_separable_targets",
]

REASONS: Mapping[str, str] = {
    "batch_norm": "BatchNorm's statistics mix the patients of a batch; use GroupNorm",
    "buffers": "a buffer is a running statistic of patients that no noise is added to; use layers "
    "without buffers, such as GroupNorm",
    "spectral_norm": "spectral_norm changes its state in every forward pass, so that one patient's "
    "gradient depends on those before; use weight decay",
    "nothing_trainable": "no weight of the network is trained; unfreeze a layer",
    "cox": "Cox's partial likelihood compares each event with everybody at risk, so that one "
    "patient changes the gradients of all; choose a head that is a sum over patients, such as "
    "logistic_hazard",
    "cox_two_phase": "the exact Cox gradient and its risk sets are sums over patients without "
    "noise; choose a head that is a sum over patients, such as logistic_hazard",
    "cox_regression": "the sums of a Cox regression over risk sets are without noise, and one "
    "patient changes every earlier one; leave the stage regression out",
    "rank_loss": "a rank loss compares pairs of patients, so that one patient changes the "
    "gradients of others; choose pmf, which is DeepHit without ranking",
    "not_a_sum": "a patient's loss depends on other patients; choose a loss that is a sum over "
    "patients",
    "targets": "a patient's targets are computed from other patients, as pseudo-values, weights "
    "for censoring (IPCW) from the hospital's own curve, or class weights of a batch are; choose a "
    "head whose targets follow from a patient's own follow-up",
    "weight_by_events": "replies weighed by events tell an exact count of events; set "
    "strategy.weight_by to patients",
    "rounds": "the study has more rounds than the hospital's policy allows (max_rounds); shorten "
    "it, as a hospital that drops out half way has spent its budget for nothing",
}
"""Why each is refused and what to do instead."""


def refusal(name: str, what: str) -> PrivacyError:
    """Return the error that refuses something.

    Parameters
    ----------
    name : str
        A key of `REASONS`.
    what : str
        What was found, e.g. ``"head 'cox_stratified'"``.
    """
    return PrivacyError(f"{what} cannot be private: {REASONS[name]}.")


def require_private_model(model: nn.Module) -> None:
    """Refuse a network that treats patients together, or keeps something of them.

    Raises
    ------
    PrivacyError
        If it has a BatchNorm, a spectral norm, a buffer of any kind, or nothing to train.
    """
    for place, module in model.named_modules():
        where = f"the network's layer '{place}'"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise refusal("batch_norm", where)
        spectral = type(module).__name__ == "_SpectralNorm" or any(
            type(hook).__name__ == "SpectralNorm" for hook in module._forward_pre_hooks.values()
        )
        if spectral:
            raise refusal("spectral_norm", where)
    for name, _ in model.named_buffers():
        raise refusal("buffers", f"the network's '{name}'")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise refusal("nothing_trainable", "the network")


def require_separable(
    loss: Callable[[Mapping[str, Tensor]], Tensor], made_up: Mapping[str, Tensor], what: str
) -> None:
    """Refuse a loss that is no sum over patients.

    Parameters
    ----------
    loss : callable
        ``loss(records)`` returns the loss of each of P patients, (P,); without dropout.
    made_up : mapping of str to Tensor
        (P, ...) each, P >= 2: patients who do not exist.
    what : str
        What it is called in the refusal.

    Raises
    ------
    PrivacyError
        If a patient's loss alone is not what it is among the others.
    """
    num_patients = len(next(iter(made_up.values())))
    with torch.no_grad():
        together = loss(made_up)
        alone = [
            loss({name: tensor[row : row + 1] for name, tensor in made_up.items()})
            for row in range(num_patients)
        ]
    apart = torch.cat([value.reshape(-1) for value in alone])
    if together.shape != apart.shape or not torch.allclose(together, apart, rtol=1e-4, atol=1e-5):
        raise refusal("not_a_sum", what)


def require_separable_targets(
    targets: Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, np.ndarray]],
    num_causes: int,
    what: str,
) -> None:
    """Refuse targets that are computed from a cohort.

    Parameters
    ----------
    targets : callable
        ``targets(months, event, cuts_months)``, as of a survival head.
    num_causes : int
        Kinds of event that it knows.

    Raises
    ------
    PrivacyError
        If a patient's row alone is not the one among others.
    """
    cuts = np.array([12.0, 24.0, 36.0])
    months = np.array([3.0, 11.0, 12.0, 20.0, 25.0, 35.0, 50.0, 13.0])
    event = np.arange(len(months)) % (num_causes + 1)
    together = targets(months, event, cuts)
    for row in range(len(months)):
        one = slice(row, row + 1)
        alone = targets(months[one], event[one], cuts)
        for name, values in together.items():
            if not np.allclose(values[one], alone[name], equal_nan=True):
                raise refusal("targets", what)
