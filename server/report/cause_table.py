"""Competing risks: each cause's incidence, predicted beside seen, and how well it is ranked."""

from protocol.evaluation import ROLES
from server.cause_results import CauseRow, CauseSeen
from server.report.table import Column, Row, Table
from server.report.text import DASH, interval, number
from server.results import Results

__all__ = ["cause_table"]

GROUPS = ("Internal hold-out", "External")
TITLES = ("Predicted", "Aalen-Johansen (95 %)", "Wolbers' C")


def cause_table(results: Results) -> Table | None:
    """Return one row a cause and end of an interval; None without competing risks."""
    by_role = {role: results.causes[role] for role in ROLES if results.causes.get(role)}
    if not by_role:
        return None
    columns = tuple(
        Column(title, group, role == "external")
        for role, group in zip(ROLES, GROUPS, strict=True)
        if role in by_role
        for title in TITLES
    )
    first = next(iter(by_role.values()))
    rows = []
    for at, cause in enumerate(first):
        rows.append(Row(cause.name, heading=True))
        for index, seen in enumerate(cause.seen):
            cells = [cell for found in by_role.values() for cell in _cells(found[at], index)]
            rows.append(Row(f"by {seen.months:g} months", tuple(cells)))
    return Table(columns, tuple(rows))


def _cells(cause: CauseRow, index: int) -> tuple[str, str, str]:
    seen, last = cause.seen[index], index == len(cause.seen) - 1
    ranked = DASH
    if last and cause.pairs.comparable:
        ranked = f"{number(cause.pairs.c_index, 3)}\n{cause.pairs.num_events} events"
    return number(seen.predicted, 3), _observed(seen), ranked if last else ""


def _observed(seen: CauseSeen) -> str:
    if seen.observed is None or seen.lower is None or seen.upper is None:
        return DASH
    return f"{number(seen.observed, 3)}\n{interval(seen.lower, seen.upper, 3)}"
