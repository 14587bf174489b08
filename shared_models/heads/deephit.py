"""DeepHit for one kind of event: the likelihood of PMF and a term that ranks pairs of patients.

The rank term couples the patients of a batch. So the loss is no sum over patients: federated
averaging ranks within hospitals only, and differential privacy refuses it
(`shared_models.heads.head.require_decomposable`). Letters: B patients, K intervals.

References
----------
Lee et al., AAAI 2018, 2314, equation 4 and L2; weights as in Kvamme et al., J Mach Learn Res
2019;20(129), appendix D.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from protocol.errors import ConfigError
from shared_models.heads.head import Head, at_least_float32
from shared_models.heads.pmf import PMF, masses, nll

__all__ = ["HEAD", "deephit", "rank_loss"]


def rank_loss(scores: Tensor, targets: Mapping[str, Tensor], sigma: float) -> Tensor:
    """Return each patient's share of the ranking loss.

    Parameters
    ----------
    scores : Tensor
        (B, K), real.
    targets : mapping
        ``interval`` (B,) and ``event`` (B,), as of `shared_models.heads.pmf.nll`.
    sigma : float
        Scale of the penalty, > 0; smaller punishes a wrong order more.

    Returns
    -------
    Tensor
        (B,), >= 0: for a patient i with an event in interval k, ``1/B sum_j exp(-(F_i(k) -
        F_j(k)) / sigma)`` over the j known to live longer; 0 without an event; lower is better.
    """
    interval, event = targets["interval"], targets["event"] > 0
    incidence = masses(at_least_float32(scores)).cumsum(dim=1)
    # at_event[i, j] = F_j(interval of i); a patient without any interval is never i.
    at_event = incidence.T[interval.clamp(min=0)]
    later = (interval[:, None] < interval[None, :]) | (
        (interval[:, None] == interval[None, :]) & ~event[None, :]
    )
    own = at_event.diagonal()[:, None]
    comparable = (later & event[:, None]).to(incidence.dtype)
    return (comparable * torch.exp((at_event - own) / sigma)).mean(dim=1)


def deephit(alpha: float = 0.2, sigma: float = 0.1) -> Head:
    """Return the head that minimises ``alpha NLL + (1 - alpha) rank``.

    Parameters
    ----------
    alpha : float
        Weight of the likelihood, in (0, 1]; 1 is PMF.
    sigma : float
        Scale of the rank term, at least 0.02; a smaller one overflows float32.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if not (0 < alpha <= 1 and 0.02 <= sigma < torch.inf):
        raise ConfigError(
            f"DeepHit's alpha {alpha} is outside (0, 1] or its sigma {sigma} below 0.02; the usual "
            "values are 0.2 and 0.1."
        )

    def loss(scores: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        return alpha * nll(scores, targets) + (1 - alpha) * rank_loss(scores, targets, sigma)

    return replace(PMF, name="deephit", nll=loss, decomposable=False)


HEAD = deephit()
"""With the weights that pycox uses unless told otherwise."""
