"""Survival heads: likelihood, survival curve and risk from the outputs of a network.

Cox's likelihoods couple patients and know no level: their heads (``relative_hazard``) predict once
they have a baseline hazard. The losses stand in ``cox``, ``cox_two_phase`` and ``cox_time``.
"""

from protocol.errors import ConfigError
from shared_models.heads import (
    aft,
    competing_risks,
    deephit,
    logistic_hazard,
    pc_hazard,
    pmf,
)
from shared_models.heads.head import Head, require_decomposable
from shared_models.heads.relative_hazard import COX_STRATIFIED, COX_TIME, COX_TWO_PHASE

__all__ = ["COX_HEADS", "HEADS", "Head", "choose_head", "require_decomposable"]

HEADS: dict[str, Head] = {
    "aft_log_logistic": aft.AFT_LOG_LOGISTIC,
    "aft_log_normal": aft.AFT_LOG_NORMAL,
    "aft_weibull": aft.AFT_WEIBULL,
    "competing_risks": competing_risks.HEAD,
    "deephit": deephit.HEAD,
    "logistic_hazard": logistic_hazard.HEAD,
    "mtlr": pmf.MTLR,
    "pc_hazard": pc_hazard.HEAD,
    "pmf": pmf.PMF,
}
"""Every head whose outputs alone are a curve, by the name that a study's YAML gives it."""

COX_HEADS: dict[str, Head] = {
    "cox_stratified": COX_STRATIFIED,
    "cox_time": COX_TIME,
    "cox_two_phase": COX_TWO_PHASE,
}
"""Heads of relative hazards, by the name that a study's YAML gives them."""


def choose_head(name: str) -> Head:
    """Return the head of that name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    heads = HEADS | COX_HEADS
    if name not in heads:
        raise ConfigError(f"Head '{name}' is unknown; choose one of {', '.join(sorted(heads))}.")
    return heads[name]
