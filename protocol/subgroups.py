"""The groups of patients in which models are judged apart, as both sides name them."""

from collections.abc import Mapping

__all__ = ["AGE_LIMITS_YEARS", "GROUPS", "MODELS", "UNKNOWN"]

UNKNOWN = "unknown"
# Left ends of the bands after the first: 40 is in 40-59, 59.9 too.
AGE_LIMITS_YEARS = (40, 60, 75)
# The groups of one attribute share no patient and leave none out.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "vendor": ("siemens", "philips", "ge", "canon", "other", UNKNOWN),
    "field_strength_t": ("1.5", "3.0", "other", UNKNOWN),
    "sex": ("female", "male", UNKNOWN),
    "age": ("<40", "40-59", "60-74", ">=75", UNKNOWN),
}
# Stages whose model is judged, as `agreed["judged"]` names it.
MODELS = ("segment", "regression", "prognosis")
