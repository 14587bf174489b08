"""The survey's document over agreed lists, so that the hospitals' add up to one of all together.

Not in it: the median follow-up, which the centre takes from the life table of all; reasons why
series are refused, which are free text and for the hospital's own engineer; units, which are those
of the data dictionary.
"""

from typing import Any

from protocol.stats.tally import Tally
from protocol.subgroups import GROUPS, field_strength_group
from protocol.summed.survey_lists import COUNTED, REFUSED_KINDS, listed

__all__ = ["survey_document"]


def survey_document(survey: dict[str, Any]) -> dict[str, Any]:
    """Return what `protocol.summed` expects of a survey.

    Parameters
    ----------
    survey : dict
        The document of `client.survey.survey` or `client.private_survey.survey`, unsuppressed.
    """
    years = survey["person_years"]
    counts = {name: survey[name] for name in ("patients", "events", "competing_events")}
    counts |= {"person_years": years, "person_years_told": int(years is not None)}
    counts["noise_variance"] = (survey.get("noise_sd") or 0.0) ** 2
    strengths: dict[str, int] = {}
    for name, count in survey["field_strengths_t"].items():
        group = _strength(name)
        strengths[group] = strengths.get(group, 0) + (count or 0)
    refused: dict[str, int] = {}
    for name, count in survey["refused"].items():
        kind = name.partition(":")[0]
        refused[kind] = refused.get(kind, 0) + (count or 0)
    return {
        "counts": Tally.of(COUNTED, {**counts, **survey["can_train"]}).to_dict(),
        "vendors": Tally.of(
            GROUPS["vendor"], listed(survey["vendors"], GROUPS["vendor"])
        ).to_dict(),
        "field_strengths_t": Tally.of(GROUPS["field_strength_t"], strengths).to_dict(),
        "refused": Tally.of(REFUSED_KINDS, listed(refused, REFUSED_KINDS)).to_dict(),
        **{name: survey[name] for name in ("covariates", "missingness", "life_table")},
    }


def _strength(name: str) -> str:
    if name in GROUPS["field_strength_t"]:
        return name
    try:
        return field_strength_group(float(name))
    except ValueError:
        return "other"
