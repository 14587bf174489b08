"""Numbers as a clinician reads them."""

import math

__all__ = ["DASH", "count", "interval", "mean_sd", "number", "p_value", "percent"]

DASH = "–"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int) -> str:
    """Return a number with a fixed count of decimals, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def count(value: int | None, min_cell: int) -> str:
    """Return a count, ``<k`` where it was withheld."""
    return f"<{min_cell}" if value is None else f"{value:,}"


def percent(part: int | None, whole: int | None) -> str:
    """Return a share as `` (12 %)``; nothing when either is unknown."""
    return f" ({100 * part / whole:.0f} %)" if part is not None and whole else ""


def mean_sd(mean: float, sd: float, digits: int) -> str:
    """Return ``mean ± sd``."""
    return number(mean, digits) if math.isnan(sd) else f"{number(mean, digits)} ± {sd:.{digits}f}"


def interval(low: float, high: float, digits: int, between: str = "to") -> str:
    """Return ``low to high``, or a dash."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return f"{number(low, digits)} {between} {number(high, digits)}"


def p_value(p: float) -> str:
    """Return a p-value with the sign: ``= 0.03``, ``< 0.001``."""
    if math.isnan(p):
        return f"= {DASH}"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"
