"""Competing risks as they stand in ``results.json``: each cause, as predicted and as seen."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from protocol.stats import PairCounts
from server.sums_fields import ENCODE, Frozen, decoder

__all__ = ["CauseRow", "CauseSeen"]

PairsField = Annotated[PairCounts, BeforeValidator(decoder(PairCounts)), ENCODE]


class CauseSeen(Frozen):
    """Cumulative incidence by one time.

    Attributes
    ----------
    months : float
    observed, lower, upper : float or None
        Aalen-Johansen with 95 % limits; None where nobody is left at risk or told of.
    predicted : float or None
        Mean of the network's predictions.
    """

    months: float = Field(gt=0)
    observed: float | None = None
    lower: float | None = None
    upper: float | None = None
    predicted: float | None = None


class CauseRow(Frozen):
    """One cause at the hospitals of one role together.

    Attributes
    ----------
    patients, events : int
        Told of, and with this cause first.
    seen : tuple of CauseSeen
        At the ends of the network's intervals.
    pairs : PairCounts
        Wolbers' C: whoever had another cause first counts as never having this one.
    """

    name: str
    patients: int = Field(ge=0)
    events: int = Field(ge=0)
    seen: tuple[CauseSeen, ...]
    pairs: PairsField
