"""The models by vendor, field strength, sex and age band: a table, and its picture."""

from collections.abc import Sequence
from typing import Any, Literal

from markupsafe import Markup

from protocol.subgroups import GROUPS, UNKNOWN
from server.design_results import SubgroupRow
from server.judgements import Overlap, Ranking
from server.report.cohort_table import VENDORS
from server.report.style import EXTERNAL, INTERNAL, new_figure, svg
from server.report.table import Column, Row, Table
from server.report.text import DASH, interval, number
from server.results import Results

__all__ = ["subgroup_figure", "subgroup_table"]

Role = Literal["train", "external"]
ROLES: dict[Role, str] = {"train": "Internal hold-out", "external": "External"}
MODELS = {"network": "Network", "regression": "Cox regression"}
ATTRIBUTES = {
    "vendor": "Scanner vendor",
    "field_strength_t": "Field strength",
    "sex": "Sex",
    "age": "Age, years",
}
LABELS = {"1.5": "1.5 T", "3.0": "3.0 T", "<40": "below 40", ">=75": "75 and above", **VENDORS}
Rows = dict[tuple[str, str, str], SubgroupRow]


def subgroup_table(results: Results) -> Table | None:
    """Return n, events, C with interval and Dice of every group, or None where none was told."""
    rows = _by_key(results.subgroups)
    shown = _shown(rows)
    parts = [(role, kind) for role in ROLES for kind in _kinds(results.subgroups, role)]
    if not parts or not shown:
        return None
    columns: list[Column] = []
    for role, kind in parts:
        titles = ("Masks", "Dice") if kind == "overlap" else ("Patients", "Events", "C-index")
        group = f"{ROLES[role]}, {MODELS.get(kind, 'segmentation')}"
        columns += [Column(title, group, role == "external") for title in titles]
    body: list[Row] = []
    for attribute, groups in shown.items():
        body.append(Row(ATTRIBUTES[attribute], heading=True))
        for group in groups:
            cells = [
                text
                for role, kind in parts
                for text in _cells(rows.get((role, attribute, group)), kind)
            ]
            body.append(Row(LABELS.get(group, group), tuple(cells)))
    return Table(tuple(columns), tuple(body))


def _by_key(rows: Sequence[SubgroupRow]) -> Rows:
    return {(row.role, row.attribute, row.group): row for row in rows}


def _shown(rows: Rows) -> dict[str, list[str]]:
    """Return the groups of each attribute; one that nobody's hospital knows is not shown."""
    shown = {}
    for attribute, groups in GROUPS.items():
        told = [g for g in groups if any((role, attribute, g) in rows for role in ROLES)]
        if told and told != [UNKNOWN]:
            shown[attribute] = told
    return shown


def _kinds(rows: Sequence[SubgroupRow], role: Role) -> list[str]:
    kinds = ("network", "regression", "overlap")
    return [k for k in kinds if any(row.role == role and getattr(row, k) for row in rows)]


def _cells(row: SubgroupRow | None, kind: str) -> tuple[str, ...]:
    figure = None if row is None else getattr(row, kind)
    if isinstance(figure, Ranking):
        value = _with_interval(figure.c_index, figure.lower, figure.upper)
        return (f"{figure.patients:,}", f"{figure.events:,}", value)
    if isinstance(figure, Overlap):
        return (f"{figure.patients:,}", _with_interval(figure.dice, figure.lower, figure.upper))
    return (DASH,) * (2 if kind == "overlap" else 3)


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return DASH
    limits = "" if low is None or high is None else f"\n{interval(low, high, 2)}"
    return f"{number(value, 3)}{limits}"


def subgroup_figure(results: Results) -> Markup | None:
    """Return the groups' C-indices with intervals, of the network where there is one."""
    rows = _by_key(results.subgroups)
    kind = "network" if any(row.network for row in results.subgroups) else "regression"
    places = [(a, group) for a, groups in _shown(rows).items() for group in groups]
    if not any(_ranked(rows, role, place, kind) for role in ROLES for place in places):
        return None
    with new_figure(7.6, 1.0 + 0.3 * len(places)) as figure:
        panel = figure.subplots()
        for height, place in enumerate(places):
            for role, colour, shift in (("train", INTERNAL, -0.14), ("external", EXTERNAL, 0.14)):
                found = _ranked(rows, role, place, kind)
                if found is not None:
                    _point(panel, found, height + shift, colour)
        labels = [f"{ATTRIBUTES[a].split(',')[0]}: {LABELS.get(g, g)}" for a, g in places]
        panel.set_yticks(range(len(places)), labels)
        panel.tick_params(axis="y", length=0)
        panel.set_ylim(len(places) - 0.5, -0.5)
        panel.axvline(0.5, color="#6b7785", lw=0.8, ls=":")
        panel.set_xlabel(f"C-index, {MODELS[kind]} (0.5 = chance, 1 = perfect ranking)")
        for label, colour in (("internal hold-out", INTERNAL), ("external", EXTERNAL)):
            panel.plot([], [], "o", color=colour, label=label)
        figure.legend(loc="outside upper center", ncols=2)
        return svg(figure, "subgroups", "C-index with 95 percent interval in groups of patients")


def _ranked(rows: Rows, role: str, place: tuple[str, str], kind: str) -> Ranking | None:
    row = rows.get((role, *place))
    found = None if row is None else getattr(row, kind)
    return found if isinstance(found, Ranking) and found.c_index is not None else None


def _point(panel: Any, found: Ranking, height: float, colour: str) -> None:
    if found.lower is not None and found.upper is not None:
        panel.plot([found.lower, found.upper], [height, height], color=colour, lw=1.6)
    panel.plot([found.c_index], [height], "o", color=colour, ms=5)
