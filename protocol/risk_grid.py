"""The common grid of times on which hospitals sum over risk sets for a network."""

import math

from protocol.errors import ConfigError

__all__ = ["MAX_RISK_POINTS", "STEPS_MONTHS", "risk_grid"]

STEPS_MONTHS = (1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48, 60)
"""Widths a grid may have; the finest on which no cell of any hospital is small is taken."""

# A difference between two points is a sum over those who left in between: few points, few sums.
MAX_RISK_POINTS = 60


def risk_grid(end_months: float, step_months: int) -> tuple[float, ...]:
    """Return the points of a grid: whole steps, and the end whatever the step.

    Parameters
    ----------
    end_months : float
        The end of the network's own grid, > 0; whoever is followed beyond is censored there.
    step_months : int
        One of `STEPS_MONTHS`.

    Raises
    ------
    ConfigError
        If the step is none of them, or there would be more than `MAX_RISK_POINTS`.
    """
    points = math.ceil(end_months / step_months - 1e-9) if step_months in STEPS_MONTHS else 0
    if not 1 <= points <= MAX_RISK_POINTS:
        raise ConfigError(
            f"Risk sets every {step_months} months up to {end_months:g} months were asked for; "
            f"steps are {', '.join(map(str, STEPS_MONTHS))}, with at most {MAX_RISK_POINTS} points."
        )
    return (*(float(step_months * (k + 1)) for k in range(points - 1)), float(end_months))
