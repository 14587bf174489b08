"""What attacks found, without privacy and with it: one row a figure, one column an epsilon."""

from privacy.audit.document import AuditDocument, AuditFigure
from server.report.table import Column, Row, Table
from server.report.text import DASH, interval, number

__all__ = ["audit_table"]

Level = tuple[float | None, float | None]


def audit_table(audit: AuditDocument | None) -> Table | None:
    """Return the figures by network; columns without privacy first, then epsilon falling."""
    if audit is None:
        return None
    levels = sorted({_level(figure) for figure in audit.figures}, key=_private_last)
    rows: list[Row] = []
    for network in dict.fromkeys(figure.network for figure in audit.figures):
        rows.append(Row(network, heading=True))
        mine = [figure for figure in audit.figures if figure.network == network]
        for attack, measure in dict.fromkeys((each.attack, each.measure) for each in mine):
            row = [each for each in mine if (each.attack, each.measure) == (attack, measure)]
            found = {_level(figure): _cell(figure) for figure in row}
            guessing = next((each.guessing for each in row if each.guessing is not None), None)
            cells = [found.get(level, DASH) for level in levels]
            rows.append(Row(f"{attack}: {measure}", (*cells, number(guessing, 2))))
    titles = (*(_title(level) for level in levels), "Guessing")
    return Table(tuple(map(Column, titles)), tuple(rows), corner="Attack", caption=audit.subject)


def _level(figure: AuditFigure) -> Level:
    return figure.epsilon, figure.delta


def _private_last(level: Level) -> tuple[bool, float, float]:
    epsilon, delta = level
    return (epsilon is not None, -(epsilon or 0.0), -(delta or 0.0))


def _title(level: Level) -> str:
    epsilon, delta = level
    if epsilon is None:
        return "Without privacy"
    return f"ε {number(epsilon, 1)}, δ {delta:g}"


def _cell(figure: AuditFigure) -> str:
    text = number(figure.value, 2)
    if figure.low is None or figure.high is None:
        return text
    return f"{text}\n{interval(figure.low, figure.high, 2)}"
