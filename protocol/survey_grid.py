"""The half-years on which follow-up is surveyed."""

from protocol.config import Study

__all__ = ["STEP_MONTHS", "survey_grid"]

STEP_MONTHS = 6.0


def survey_grid(study: Study) -> tuple[float, ...]:
    """Return the half-years of the surveyed life table, months."""
    steps = round(study.prognosis.max_horizon_months / STEP_MONTHS)
    return tuple(STEP_MONTHS * step for step in range(steps + 1))
