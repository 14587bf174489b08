"""Survival heads: likelihood, survival curve and risk from the outputs of a network.

Cox's likelihoods couple patients and are no heads: see ``cox``, ``cox_two_phase``, ``cox_time``.
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

__all__ = ["HEADS", "Head", "choose_head", "require_decomposable"]

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
"""Every head by the name that a study's YAML gives it."""


def choose_head(name: str) -> Head:
    """Return the head of that name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in HEADS:
        raise ConfigError(f"Head '{name}' is unknown; choose one of {', '.join(HEADS)}.")
    return HEADS[name]
