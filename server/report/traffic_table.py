"""How much was sent to train each network: one row a stage."""

from server.report.table import Column, Row, Table
from server.report.text import number
from server.results import Results, Training

__all__ = ["traffic_table"]

STAGES = {"sort": "Sorting", "segment": "Segmentation", "prognosis": "Prognosis"}
MEGABYTE = 2**20


def traffic_table(results: Results) -> Table | None:
    """Return what went down and up for a hospital in a round, and in all; None if not counted."""
    rows = [
        Row(title, _cells(results.training[stage]))
        for stage, title in STAGES.items()
        if stage in results.training and results.training[stage].num_asked
    ]
    if not rows:
        return None
    each = "MB a hospital and round"
    columns = (
        Column("Rounds"),
        Column("Down", each),
        Column("Up", each),
        Column("All hospitals and rounds, MB"),
    )
    return Table(columns, tuple(rows), corner="Network")


def _cells(training: Training) -> tuple[str, ...]:
    asked = sum(training.num_asked)
    down, up = sum(training.bytes_down), sum(training.bytes_up)
    return (
        str(len(training.num_asked)),
        number(down / asked / MEGABYTE, 2),
        number(up / asked / MEGABYTE, 2),
        number((down + up) / MEGABYTE, 1),
    )
