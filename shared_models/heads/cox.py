"""Cox's partial likelihood of a network's output, stratified, with tied times.

It is no sum over patients: each event is compared with everyone at risk. The hospitals' sums added
are the likelihood stratified by hospital (a baseline hazard for each); averaged means are not.
Mini-batches bias it, and differential privacy by per-patient clipping is false for it. With one
baseline for all hospitals use `shared_models.heads.cox_two_phase`. Letters: N patients.

References
----------
Cox, J R Stat Soc B 1972;34:187; Breslow, Biometrics 1974;30:89; Efron, J Am Stat Assoc 1977;72:557.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from protocol.errors import ConfigError, DataError

__all__ = ["event_terms", "partial_nll"]


def partial_nll(
    log_hazard: Tensor,
    months: Tensor,
    event: Tensor,
    *,
    strata: Tensor | None = None,
    ties: Literal["efron", "breslow"] = "efron",
    normaliser: float = 1.0,
) -> Tensor:
    """Return the negative log partial likelihood.

    Parameters
    ----------
    log_hazard : Tensor
        (N,) log relative hazard ``f``, real.
    months, event : Tensor
        (N,) follow-up times, > 0, and 1 event, 0 censored.
    strata : Tensor, optional
        (N,) integers; patients are compared within a stratum only.
    ties : str
        How events at one time share their risk set.
    normaliser : float
        What the sum is divided by, > 0: a number agreed by all hospitals, such as the events or the
        patients of the study. Never a batch's own number of events, which may be 0.

    Returns
    -------
    Tensor
        Scalar: ``sum over events of [ln sum_{t_j >= t_i} e^{f_j} - f_i]`` (Breslow), over the
        normaliser; lower is better, 0 without events. The order of the rows is irrelevant to the
        bit (on a GPU with torch's deterministic algorithms only).

    Raises
    ------
    ConfigError
        If the normaliser is not positive or ``ties`` unknown.
    DataError
        If shapes differ, a time is not positive and finite, or an event is neither 0 nor 1.
    """
    if not 0 < normaliser < float("inf") or ties not in ("efron", "breslow"):
        raise ConfigError(
            f"Cox's likelihood was given the normaliser {normaliser} and ties '{ties}'; the "
            "normaliser must be positive and ties 'efron' or 'breslow'."
        )
    if strata is None:
        strata = torch.zeros_like(event)
    _check(log_hazard, months, event, strata)
    score, time, happened, stratum = (
        each.detach().cpu().numpy() for each in (log_hazard, months, event, strata)
    )
    # Sorted by everything a row has, so rows in another order are added in the same one.
    order = np.lexsort((score, happened, -time, stratum))
    _, starts = np.unique(stratum[order], return_index=True)
    rows = torch.from_numpy(order).to(log_hazard.device)
    parts = [
        _stratum_nll(log_hazard[part], months[part], event[part] > 0, ties == "efron")
        for part in torch.tensor_split(rows, starts[1:].tolist())
    ]
    return torch.stack(parts).sum() / normaliser


def event_terms(log_hazard: Tensor, months: Tensor, event: Tensor) -> Tensor:
    """Return each patient's term of the negative log partial likelihood, Efron's ties.

    Parameters
    ----------
    log_hazard : Tensor
        (N,) log relative hazard f, real.
    months, event : Tensor
        (N,) follow-up times, > 0, and 1 event, 0 censored.

    Returns
    -------
    Tensor
        (N,), 0 without an event. Who is tied has the mean of the tied terms, so the order of the
        rows is irrelevant; the sum is `partial_nll`'s. A term depends on everybody at risk.

    Raises
    ------
    DataError
        As `partial_nll`.
    """
    _check(log_hazard, months, event, torch.zeros_like(event))
    order = torch.argsort(months, descending=True, stable=True)
    happened, tied = event[order] > 0, months[order]
    values = _stratum_terms(log_hazard[order], tied, happened, True)
    _, group = torch.unique_consecutive(tied[happened], return_inverse=True)
    sums = torch.zeros_like(values).index_add(0, group, values)
    shared = (sums / torch.bincount(group, minlength=len(values)).clamp(min=1))[group]
    return torch.zeros_like(log_hazard).index_put((order[happened],), shared)


def _stratum_nll(log_hazard: Tensor, months: Tensor, event: Tensor, efron: bool) -> Tensor:
    """Return the sum over the events of one stratum, its rows from the latest time on."""
    return _stratum_terms(log_hazard, months, event, efron).sum()


def _stratum_terms(log_hazard: Tensor, months: Tensor, event: Tensor, efron: bool) -> Tensor:
    """Return the term of each event of one stratum, its rows from the latest time on."""
    _, group, sizes = torch.unique_consecutive(months, return_inverse=True, return_counts=True)
    # The risk set of a time ends with the last of the rows tied at it.
    log_risk = log_hazard.logcumsumexp(dim=0)[sizes.cumsum(0) - 1][group][event]
    own, tied = log_hazard[event], group[event]
    terms = log_risk - own
    if efron:
        # The l-th of m tied events leaves l/m of the tied events' hazard out of the risk set. In
        # shares of the risk set nothing overflows, and the share left is at least 1/m.
        share = torch.zeros_like(log_hazard).index_add(0, tied, (own - log_risk).exp())[tied]
        count = torch.bincount(tied, minlength=len(sizes))
        rank = torch.arange(len(tied), device=tied.device) - (count.cumsum(0) - count)[tied]
        terms = terms + torch.log1p(-rank.to(share.dtype) / count[tied] * share)
    return terms


def _check(log_hazard: Tensor, months: Tensor, event: Tensor, strata: Tensor) -> None:
    shapes = {tuple(each.shape) for each in (log_hazard, months, event, strata)}
    if len(shapes) > 1 or log_hazard.ndim != 1 or not len(log_hazard):
        raise DataError(
            f"Cox's likelihood was given arrays of shapes {sorted(shapes)}; give one number for "
            "each of at least one patient."
        )
    if not bool(
        (torch.isfinite(months) & (months > 0)).all() & ((event == 0) | (event == 1)).all()
    ):
        raise DataError(
            "A follow-up time is not positive and finite, or an event is neither 0 nor 1; keep "
            "only patients with a known outcome."
        )
