"""The state of a run in a terminal, or as plain text in a pipe."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from server.watching.state import Curve, HospitalState, RoundState, RunState

__all__ = ["run_table"]

NEWEST_ROUNDS, NEWEST_EVENTS = 8, 8
STYLES = {
    "failed": "bold red",
    "finished with missing hospitals": "bold red",
    "stopped": "yellow",
    "finished": "bold green",
}
PHASES = {
    "not joined": "yellow",
    "late": "bold red",
    "left out": "bold red",
    "missing": "bold red",
    "no longer a member": "bold red",
    "answered": "green",
    "took part": "green",
    "working": "cyan",
}


def run_table(state: RunState, width: int = 100) -> RenderableType:
    """Return the run as tables: the sentence, hospitals, rounds, figures, newest events.

    Parameters
    ----------
    width : int
        Of the terminal, in characters; narrow ones get fewer columns.
    """
    parts: list[RenderableType] = [_head(state), _hospitals(state.hospitals)]
    if state.rounds:
        parts.append(_rounds(state.rounds[-NEWEST_ROUNDS:], state.curves))
    if state.figures:
        parts.append(_figures(state))
    if state.log and width >= 60:
        parts.append(_log(state))
    return Group(*parts)


def _head(state: RunState) -> Text:
    status = state.status if not state.code else f"{state.status}, {state.code}"
    head = Text.assemble(
        (state.name, "bold"), ": ", (status, STYLES.get(state.status, "bold cyan")), "\n"
    )
    head.append(state.sentence)
    if state.stages:
        marks = {"done": "green", "now": "bold cyan", "ahead": "dim"}
        head.append("\n")
        for index, stage in enumerate(state.stages):
            head.append(" > " if index else "", "dim")
            head.append(f"[{stage.name}]" if stage.state == "now" else stage.name)
            head.stylize(marks[stage.state], len(head) - len(stage.name))
    if state.epsilon is not None:
        head.append(f"\nspent by each hospital: epsilon {state.epsilon:.3g} at delta {state.delta}")
    return head


def _table(title: str, columns: Iterable[str], numbers: Iterable[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    right = set(numbers)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


def _hospitals(hospitals: Iterable[HospitalState]) -> Table:
    shown = list(hospitals)
    budget = any(each.epsilon is not None for each in shown)
    columns = ["hospital", "role", "state", "missed", "last round"]
    columns += (["epsilon"] if budget else []) + ["why"]
    table = _table("Hospitals", columns, ("missed", "last round", "epsilon"))
    for each in shown:
        style = PHASES.get(each.phase, "")
        why = f"{each.code} {each.sentence}".strip()
        cells = [each.name, each.role, f"[{style}]{each.phase}[/]" if style else each.phase]
        cells += [str(each.missed_in_a_row or ""), str(each.last_round or "")]
        cells += [("" if each.epsilon is None else f"{each.epsilon:.3g}")] if budget else []
        table.add_row(*cells, escape(why))
    return table


def _rounds(rounds: Iterable[RoundState], curves: Iterable[Curve]) -> Table:
    losses = [curve for curve in curves if curve.metric == "loss"]
    shown = list(rounds)
    traffic = any(each.mb_down is not None for each in shown)
    columns = ["stage", "round", "counted", "left out", "s"]
    columns += (["MB down", "MB up"] if traffic else []) + ["loss, lowest to highest"]
    table = _table("Newest rounds", columns, ("round", "counted", "s", "MB down", "MB up"))
    for each in shown:
        cells = [each.stage, str(each.number), str(each.counted), ", ".join(each.left_out)]
        cells.append(f"{each.seconds:.1f}")
        if traffic:
            cells += [_number(each.mb_down), _number(each.mb_up)]
        table.add_row(*cells, _span(losses, each))
    return table


def _span(losses: Iterable[Curve], each: RoundState) -> str:
    values = [
        curve.values[each.number - 1]
        for curve in losses
        if curve.stage == each.stage and len(curve.values) >= each.number
    ]
    told = [value for value in values if value is not None]
    if not told:
        return ""
    low, high = min(told), max(told)
    return f"{low:.3f}" if len(told) == 1 else f"{low:.3f} to {high:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _figures(state: RunState) -> Table:
    names = list(dict.fromkeys(figure.name for figure in state.figures))
    table = _table("Finished models", ["hospital", *names], names)
    for site in dict.fromkeys(figure.hospital for figure in state.figures):
        found = {f.name: f"{f.value:.3f}" for f in state.figures if f.hospital == site}
        table.add_row(site, *(found.get(name, "") for name in names))
    return table


def _log(state: RunState) -> Table:
    table = _table("Newest events", ["UTC", "what"])
    for line in state.log[-NEWEST_EVENTS:]:
        table.add_row(line.time[11:19], escape(line.text))
    return table
