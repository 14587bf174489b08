"""Which part of the hospitals answered a round, for rules that remember the absent ones."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EVERYBODY", "Turnout"]


@dataclass(frozen=True)
class Turnout:
    """Shares of the weight of all hospitals that were heard so far, this round included.

    Attributes
    ----------
    share : float
        Of those who answered this round, in (0, 1].
    kept : float
        Of those who had been heard before this round, in [0, 1]; below 1 when one is new.
    """

    share: float = 1.0
    kept: float = 1.0

    @classmethod
    def of(cls, before: Mapping[str, float], now: Mapping[str, float]) -> "Turnout":
        """Return the turnout of a round.

        Parameters
        ----------
        before : mapping
            Last weight above 0 of each hospital heard earlier, by name.
        now : mapping
            Weights of this round's replies, of which one at least is above 0.
        """
        known = {**before, **{site: weight for site, weight in now.items() if weight > 0}}
        total = sum(known[site] for site in sorted(known))
        old = sum(known[site] for site in sorted(before))
        return cls(share=sum(now[site] for site in sorted(now)) / total, kept=old / total)


EVERYBODY = Turnout()
