"""Cox-Time: relative hazards that change with time, learned from cases and sampled controls.

The network gives ``f(t, x)``. At the time of each event the patient who has it is compared with
controls drawn from those at risk at the same hospital, so each hospital keeps a baseline hazard of
its own and the loss is stratified by hospital. It couples patients: no differential privacy by
per-patient clipping. A network that gives ``f`` for every interval of the study's grid at once
needs no draw: `interval_terms` compares a case with everybody at risk (equation 6), which is what a
study trains. To predict, take `shared_models.heads.cox_two_phase.risk_set_sums` of ``f`` at the
grid points, (N, K), and `survival_at` there. Letters: N patients, E events, n controls for an
event.

References
----------
Kvamme, Borgan & Scheel, J Mach Learn Res 2019;20(129), equations 6 and 9.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from protocol.errors import ConfigError
from shared_models.heads.outcomes import checked_outcomes

__all__ = ["case_control_nll", "cox_time_loss", "interval_terms", "sample_controls"]


def sample_controls(
    months: np.ndarray, event: np.ndarray, num_controls: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw controls for every event.

    Parameters
    ----------
    months, event : ndarray
        (N,) follow-up times, > 0, and 1 event, 0 censored, of one hospital.
    num_controls : int
        n, >= 1.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    cases : ndarray
        (E,) rows with an event, in their order.
    controls : ndarray
        (E, n) rows drawn with replacement from ``t_j >= t_case``, the case among them.

    Raises
    ------
    ConfigError
        If there is not at least one control for each case.
    DataError
        If an outcome is impossible.
    """
    if num_controls < 1:
        raise ConfigError(f"Cox-Time was given {num_controls} controls an event; give at least 1.")
    time, happened, _ = checked_outcomes(months, event, [1.0])
    order = np.argsort(time, kind="stable")
    cases = np.flatnonzero(happened == 1)
    first = np.searchsorted(time[order], time[cases], side="left")
    draws = rng.integers(first[:, None], len(time), size=(len(cases), num_controls))
    return cases, order[draws]


def case_control_nll(case: Tensor, controls: Tensor) -> Tensor:
    """Return ``ln(1 + sum_c e^(f_c - f_case))`` of each case, lower is better.

    Parameters
    ----------
    case : Tensor
        (E,) f of the cases at their own times.
    controls : Tensor
        (E, n) f of the controls at those times.

    Returns
    -------
    Tensor
        (E,), >= 0.
    """
    differences = controls - case[:, None]
    return torch.cat((torch.zeros_like(case)[:, None], differences), dim=1).logsumexp(dim=1)


def cox_time_loss(
    relative: Callable[[Tensor, Tensor], Tensor],
    months: np.ndarray,
    event: np.ndarray,
    *,
    num_controls: int = 1,
    rng: np.random.Generator,
    normaliser: float = 1.0,
) -> Tensor:
    """Return one hospital's loss with freshly drawn controls.

    Parameters
    ----------
    relative : callable
        ``relative(rows, months)`` is f, (R,), of the patients in (R,) ``rows`` at (R,) times.
    months, event : ndarray
        (N,) follow-up times, > 0, and 1 event, 0 censored.
    num_controls : int
        n, >= 1.
    rng : numpy.random.Generator
        Source of the draws.
    normaliser : float
        A number agreed by all hospitals, > 0; never a hospital's own number of events.

    Returns
    -------
    Tensor
        Scalar; 0, with a gradient of 0, without events.

    Raises
    ------
    ConfigError
        If the normaliser is not positive or there is no control.
    DataError
        If an outcome is impossible.
    """
    if not 0 < normaliser < float("inf"):
        raise ConfigError(f"Cox-Time's normaliser {normaliser} is not positive and finite.")
    cases, controls = sample_controls(months, event, num_controls, rng)
    # One call of the network: each case, then its controls, all at the case's time.
    rows = np.concatenate([cases[:, None], controls], axis=1)
    times = np.repeat(np.asarray(months, np.float64)[cases], num_controls + 1)
    flat = relative(torch.from_numpy(rows.ravel()), torch.from_numpy(times))
    scores = flat.unflatten(0, (len(cases), num_controls + 1))
    return case_control_nll(scores[:, 0], scores[:, 1:]).sum() / normaliser


def interval_terms(outputs: Tensor, interval: Tensor, months: Tensor, event: Tensor) -> Tensor:
    """Return each patient's term of the loss with full risk sets, f constant in each interval.

    Parameters
    ----------
    outputs : Tensor
        (N, K): f of each patient in each interval.
    interval : Tensor
        (N,) integer, 0..K-1: the interval that holds the patient's time.
    months, event : Tensor
        (N,) follow-up times, > 0, and 1 event, 0 censored.

    Returns
    -------
    Tensor
        (N,), >= 0, 0 without an event: ``ln(1 + sum_{j != i, t_j >= t_i} e^(f_j(t_i) -
        f_i(t_i)))``, Breslow's ties. A term depends on everybody at risk.
    """
    cases = torch.nonzero(event > 0).squeeze(1)
    everyone = outputs.T[interval[cases]]
    own = everyone.gather(1, cases[:, None]).squeeze(1)
    compared = months[None, :] >= months[cases][:, None]
    compared = compared.scatter(1, cases[:, None], False)
    terms = case_control_nll(own, everyone.masked_fill(~compared, -torch.inf))
    return torch.zeros_like(outputs[:, 0]).index_put((cases,), terms)
