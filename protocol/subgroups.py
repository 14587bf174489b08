"""The groups of patients in which models are judged apart, as both sides name them."""

import math
from collections.abc import Mapping

__all__ = ["AGE_LIMITS_YEARS", "GROUPS", "MODELS", "UNKNOWN", "field_strength_group"]

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
FIELD_TOLERANCE_T = 0.11  # 2.89 T and 1.49 T are what headers of 3 T and 1.5 T scanners say


def field_strength_group(tesla: float) -> str:
    """Return the group a field strength, NaN where it is not known, belongs to."""
    if not math.isfinite(tesla):
        return UNKNOWN
    near = [name for name in ("1.5", "3.0") if abs(tesla - float(name)) <= FIELD_TOLERANCE_T]
    return near[0] if near else "other"
