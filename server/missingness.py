"""Defects of single hospitals' covariates, found in summed counts and named.

A registry that writes 0 for an unknown cholesterol, a hospital that never measures something, a
column that was filled with one value: each would teach a network the hospital instead of the heart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from protocol.stats.missingness import Missingness

__all__ = ["Defect", "find_defects"]

MOSTLY = 0.5
RARE, SUSPICIOUS = 0.02, 0.1


@dataclass(frozen=True)
class Defect:
    """What is odd about one covariate at one hospital, as a clause: ``0 in 100 % of ...``."""

    hospital: str
    covariate: str
    why: str


def find_defects(counts: Mapping[str, Missingness]) -> tuple[Defect, ...]:
    """Return what is odd, by hospital and then covariate.

    A covariate is named where it is missing in half the patients or more; where at least a tenth of
    the known values are 0 and hardly any are in the middle one of the other hospitals (and it is no
    0/1 covariate); and where all known values are the same though other hospitals' differ (of a 0/1
    covariate they well may be: a rare finding at a small hospital).

    Parameters
    ----------
    counts : mapping of str to Missingness
        By hospital, all of the same covariates.
    """
    found: list[Defect] = []
    told = {site: part for site, part in counts.items() if part.patients > 0}
    for site, part in told.items():
        others = [other for name, other in told.items() if name != site]
        for index, name in enumerate(part.names):
            found += [Defect(site, name, why) for why in _reasons(part, others, index)]
    return tuple(found)


def _share(part: Missingness, index: int) -> float:
    """Return the share of zeros among the known values; nan where none is known."""
    known = part.patients - int(part.missing[index])
    return int(part.zeros[index]) / known if known else float("nan")


def _reasons(part: Missingness, others: list[Missingness], index: int) -> list[str]:
    missing, patients = int(part.missing[index]), part.patients
    elsewhere = sum(other.patients for other in others)
    gone = sum(int(other.missing[index]) for other in others)
    reasons = []
    if missing >= MOSTLY * patients:
        place = f", elsewhere in {gone / elsewhere:.0%}" if elsewhere else ""
        reasons.append(f"missing in {missing / patients:.0%} of its patients{place}")
    # Those who hardly measure it cannot say how often it is 0.
    measuring = [o for o in others if int(o.missing[index]) < MOSTLY * o.patients]
    shares = [_share(other, index) for other in measuring]
    zeros = _share(part, index)
    everybody = [part, *others]
    informed = sum(other.patients > int(other.missing[index]) for other in everybody)
    flag = sum(int(other.binary[index]) for other in everybody) > informed / 2
    if not flag and shares and float(np.median(shares)) <= RARE and zeros >= SUSPICIOUS:
        reasons.append(
            f"0 in {zeros:.0%} of its known values, which hardly occurs elsewhere: 0 may stand for "
            "missing"
        )
    varied = [o for o in others if o.patients > int(o.missing[index]) and not o.constant[index]]
    if part.constant[index] and varied and not flag and not (reasons and zeros == 1.0):
        reasons.append("the same value in all its patients")
    return reasons
