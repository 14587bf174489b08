"""What is known of a model at a set of patients, as figures: ranking and overlap, with intervals.

The sums themselves stay in the results of the run they belong to; a design or a table of subgroups
has too many cells to carry the bootstrap replicates of each.
"""

import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from protocol.stats import OverlapSums, PairCounts

__all__ = ["Overlap", "Ranking"]

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NORMAL_95 = 1.959963984540054


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ranking(_Frozen):
    """Harrell's C within hospitals.

    Attributes
    ----------
    patients, events, pairs : int
        Events before the truncation; comparable pairs.
    c_index : float or None
        In [0, 1], .5 is chance, higher is better; none without a pair.
    se, lower, upper : float or None
        Standard deviation and 95 % percentiles of the bootstrap replicates.
    """

    patients: Count = 0
    events: Count = 0
    pairs: Count = 0
    c_index: Share | None = None
    se: Annotated[float, Field(ge=0)] | None = None
    lower: Share | None = None
    upper: Share | None = None

    @classmethod
    def of(cls, pairs: PairCounts) -> Self:
        """Return the figures of counted pairs."""
        low, high = pairs.interval()
        return cls(
            patients=pairs.num_patients,
            events=pairs.num_events,
            pairs=pairs.comparable,
            c_index=_known(pairs.c_index),
            se=_known(pairs.standard_error),
            lower=_known(low),
            upper=_known(high),
        )


class Overlap(_Frozen):
    """Mean Dice over the classes and phases of the masks.

    Attributes
    ----------
    patients : int
        Those with reference masks.
    dice : float or None
        In [0, 1], higher is better.
    lower, upper : float or None
        ``dice`` -+ 1.96 times the mean of the standard errors of the classes and phases. The
        standard error of a mean of correlated figures is never above the mean of theirs, so the
        interval is at least as wide as it has to be.
    by_class : dict of str to float
        Mean over both phases.
    """

    patients: Count = 0
    dice: Share | None = None
    lower: Share | None = None
    upper: Share | None = None
    by_class: dict[str, Share] = Field(default_factory=dict)

    @classmethod
    def of(cls, sums: OverlapSums) -> Self:
        """Return the figures of overlap sums."""
        cells = {
            name: [cell for cell in (sums.cell("dice", name, p) for p in sums.phases) if cell.n]
            for name in sums.classes
        }
        every = [cell for part in cells.values() for cell in part]
        if not every:
            return cls()
        dice = math.fsum(cell.mean for cell in every) / len(every)
        error = math.fsum(cell.sd / math.sqrt(cell.n) for cell in every) / len(every)
        half = NORMAL_95 * error
        return cls(
            patients=max(cell.n for cell in every),
            dice=min(max(dice, 0.0), 1.0),
            lower=max(dice - half, 0.0) if math.isfinite(half) else None,
            upper=min(dice + half, 1.0) if math.isfinite(half) else None,
            by_class={
                name: min(math.fsum(cell.mean for cell in part) / len(part), 1.0)
                for name, part in cells.items()
                if part
            },
        )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
