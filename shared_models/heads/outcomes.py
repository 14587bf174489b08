"""Checking follow-up, and the hazards to start from, before a head transforms them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from protocol.errors import ConfigError, DataError

__all__ = ["MIN_HAZARD", "checked_hazards", "checked_outcomes"]

MIN_HAZARD = 1e-4


def checked_hazards(hazards: Sequence[float], cuts_months: Sequence[float]) -> list[float]:
    """Return one hazard for each interval, at least `MIN_HAZARD` away from 0 and 1.

    An interval without events has the estimate 0, whose logit a network could never leave.

    Raises
    ------
    ConfigError
        If there is not one for each interval, or one is outside [0, 1].
    """
    if not len(hazards) == len(cuts_months) > 0 or not all(0 <= each <= 1 for each in hazards):
        raise ConfigError(
            f"The hazards to start from, {list(hazards)}, are not one number in [0, 1] for each of "
            f"{len(cuts_months)} intervals; take them from the survey's life table."
        )
    return [min(max(float(each), MIN_HAZARD), 1 - MIN_HAZARD) for each in hazards]


def checked_outcomes(
    months: npt.ArrayLike, event: npt.ArrayLike, cuts_months: npt.ArrayLike, *, num_causes: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, events and cuts as arrays, or refuse them.

    Parameters
    ----------
    months : array
        (B,) follow-up times, > 0, finite.
    event : array
        (B,) 0 censored, 1..``num_causes`` the kind of event.
    cuts_months : array
        (K,) interval ends, increasing from above 0.

    Returns
    -------
    tuple of ndarray
        Float64 times, events as given, float64 cuts.

    Raises
    ------
    DataError
        If a time is not positive and finite, an event is unknown, lengths differ, or the cuts do
        not rise.
    """
    time, happened = np.asarray(months, np.float64), np.asarray(event)
    cuts = np.asarray(cuts_months, np.float64)
    known = "neither 0 nor 1" if num_causes == 1 else f"no whole number from 0 to {num_causes}"
    if (
        not (np.isfinite(time) & (time > 0)).all()
        or not np.isin(happened, np.arange(num_causes + 1)).all()
    ):
        raise DataError(
            f"A follow-up time is not positive and finite, or an event is {known}; keep "
            "only patients with a known outcome."
        )
    if time.ndim != 1 or time.shape != happened.shape:
        raise DataError(
            f"Follow-up times and events have shapes {time.shape} and {happened.shape}; give one "
            "of each for every patient."
        )
    if cuts.ndim != 1 or not len(cuts) or not (np.diff(cuts, prepend=0.0) > 0).all():
        raise DataError(f"The time grid {cuts.tolist()} does not rise from 0; make a new one.")
    return time, happened, cuts
