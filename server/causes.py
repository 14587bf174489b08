"""Competing risks at the centre: the hospitals' sums of each cause, added by role."""

import math
from typing import Any

from protocol.evaluation import ROLES, Role
from protocol.secure_groups import role_in
from protocol.stats import Moments, PairCounts, merge_all
from protocol.stats.cumulative_incidence import CauseTable
from server.cause_results import CauseRow, CauseSeen
from server.centre import Centre
from server.findings import Findings
from server.telling import ask_all

__all__ = ["ask_causes", "cause_rows"]


def ask_causes(centre: Centre, findings: Findings) -> dict[Role, tuple[CauseRow, ...]]:
    """Ask every validating hospital about the causes of a network of competing risks.

    Raises
    ------
    QuorumError
        If too few hospitals answered.
    """
    sites, names = centre.study.hospitals.validating, centre.study.prognosis.causes
    answers = ask_all(
        centre, "evaluate.causes", sites, findings.agreed, findings.prognosis, may_decline=True
    )
    by_role: dict[Role, list[dict[str, Any]]] = {role: [] for role in ROLES}
    for teller, answer in answers.items():
        if answer:
            by_role[role_in(centre.study, teller)].append(answer)
    return {role: cause_rows(told, names) for role, told in by_role.items() if told}


def cause_rows(answers: list[dict[str, Any]], names: tuple[str, ...]) -> tuple[CauseRow, ...]:
    """Return one row a cause.

    Parameters
    ----------
    answers : list of dict
        Of `client.causes.judge`, at least one, in the order in which sums are added.
    names : tuple of str
        Of the causes.
    """
    table = merge_all([CauseTable.from_dict(answer["table"]) for answer in answers])
    rows = []
    for at, name in enumerate(names):
        curve = table.curve(at)
        parts = [Moments.from_dict(answer["predicted"][name]) for answer in answers]
        mean = merge_all(parts).mean.tolist()
        columns = (curve.months, curve.incidence, curve.lower, curve.upper)
        points = list(zip(*(column.tolist() for column in columns), strict=True))[1:]
        seen = [
            CauseSeen(
                months=month,
                observed=_known(observed),
                lower=_known(lower),
                upper=_known(upper),
                predicted=_known(predicted),
            )
            for (month, observed, lower, upper), predicted in zip(points, mean, strict=True)
        ]
        pairs = [PairCounts.from_dict(answer["pairs"][name]) for answer in answers]
        rows.append(
            CauseRow(
                name=name,
                patients=round(float(table.table.num_patients.sum())),
                events=round(float(table.table.events[at].sum())),
                seen=tuple(seen),
                pairs=merge_all(pairs),
            )
        )
    return tuple(rows)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
