"""From what a hospital answers to a form whose merge is addition, and from its sum back.

Most statistics are sums as they are. `FORMS` has the others, by the class that travels: means and
squared deviations become power sums about an agreed centre, the list of occupied cells a count a
cell, logarithms of risk sets the risk sets.
"""

from collections.abc import Callable
from typing import Any

from protocol.stats.agreement import AgreementSums
from protocol.stats.agreement_powers import AgreementPowers
from protocol.stats.moments import Moments
from protocol.stats.power_sums import PowerSums
from protocol.stats.risk_sums import RiskSums
from protocol.stats.score_counts import ScoreCounts
from protocol.stats.score_table import ScoreTable
from protocol.stats.sums import Sums, require
from protocol.stats.vectors import same_labels

__all__ = ["FORMS", "additive"]


# (the sums of nobody, a hospital's document) to the hospital's sums in this form.
Form = Callable[[Any, dict[str, Any]], Sums]
FORMS: dict[type[Sums], Form] = {
    AgreementPowers: lambda nobody, told: nobody.filled(AgreementSums.from_dict(told)),
    PowerSums: lambda nobody, told: nobody.filled(Moments.from_dict(told)),
    RiskSums: lambda nobody, told: nobody.filled(told),
    ScoreCounts: lambda nobody, told: nobody.filled(ScoreTable.from_dict(told)),
}


def additive(nobody: Sums, told: Any) -> Sums:
    """Return a document of one statistic in the form in which it adds.

    Parameters
    ----------
    nobody : Sums
        The statistic of no patient, in the form that travels; it says what is counted.
    told : dict
        What the hospital's answer holds, as ``to_dict`` of the class that it answers with wrote it.

    Raises
    ------
    PayloadError
        If the document is no such statistic, or counts other things.
    """
    require(isinstance(told, dict), "A statistic that is to be summed must be an object.")
    form = FORMS.get(type(nobody))
    found = type(nobody).from_dict(told) if form is None else form(nobody, told)
    require(
        same_labels(found, nobody),
        f"{type(nobody).__name__}: the answer counts other things than the question asked for; "
        "both ends must run the same version.",
    )
    return found
