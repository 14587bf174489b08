"""What `client.check` found, as the tables that the terminal shows."""

import math
from collections.abc import Iterator, Mapping

from rich.table import Table

from client.check import Report
from client.intake.dropped import DroppedTags

__all__ = ["tables"]


def tables(report: Report) -> Iterator[Table]:
    """Yield one table a subject."""
    yield _pairs(f"{report.site}: patients", _patients(report))
    if report.refused:
        table = Table("what", "why", "count", title="Not used, or mended")
        for refusal in report.refused:
            table.add_row(refusal.kind, refusal.reason, str(refusal.count))
        yield table
    if report.dropped is not None:
        yield _dropped(report.dropped)
    if report.missing:
        missing = {name: f"{share:.0%}" for name, share in report.missing.items()}
        yield _pairs("Covariates missing", missing)
    yield _pairs("What a study would learn", report.leaves)


def _patients(report: Report) -> dict[str, str]:
    def counts(by: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in by.items())

    months = "" if math.isnan(report.median_months) else f"{report.median_months:.0f} months"
    low, high = report.spacing_mm
    images = {
        "vendors": counts(report.vendors),
        "field strengths": counts(report.field_strengths_t),
        "slices": f"{report.slices[0]} to {report.slices[1]}, {low:.1f} to {high:.1f} mm apart",
        "with expert masks": str(report.with_masks),
        "with late enhancement": str(report.with_lge),
    }
    return {
        "found": str(report.found),
        "usable": str(report.usable),
        **(images if report.vendors else {"images": "none: outcomes and covariates only"}),
        "with outcome": str(report.with_outcome),
        "events": str(report.events),
        "median follow-up": months,
    }


def _dropped(dropped: DroppedTags) -> Table:
    told = {name: str(count) for name, count in dropped.by_name.items()}
    told |= {"private groups": str(dropped.private_groups)}
    told |= {"files with private elements": str(dropped.with_private)}
    title = f"Seen and not kept, files of {dropped.looked_at} looked at ({dropped.files} in all)"
    return _pairs(title, told)


def _pairs(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
