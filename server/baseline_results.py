"""The baseline hazard of a Cox head as it stands in ``results.json``."""

from pydantic import Field

from server.sums_fields import Frozen

__all__ = ["BaselineResults"]


class BaselineResults(Frozen):
    """Breslow's estimate from the hospitals' risk sets at the trained weights.

    Attributes
    ----------
    step_months : int
        Of the risk sets' grid.
    hospitals : tuple of str
        Whose risk sets are in it.
    left_out : dict of str to str
        Training hospitals that are not, with the reason.
    patients, events : int
        At risk at the first point of the grid, and counted up to its end.
    grid_months, hazard : tuple of float
        Points of the grid, and the increment of the cumulative baseline hazard at each, of a
        patient with the network's output 0.
    log_likelihood : float
        Pooled log partial likelihood of the network on that grid, Breslow's ties; higher is better.
    """

    step_months: int = Field(ge=1)
    hospitals: tuple[str, ...] = Field(min_length=1)
    left_out: dict[str, str] = Field(default_factory=dict)
    patients: int = Field(ge=0)
    events: int = Field(ge=1)
    grid_months: tuple[float, ...] = Field(min_length=1)
    hazard: tuple[float, ...]
    log_likelihood: float
