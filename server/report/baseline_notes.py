"""What a Cox head's curves rest on, and whom its training skipped, in sentences."""

from server.results import Results

__all__ = ["baseline_notes", "skipped_notes"]


def skipped_notes(results: Results) -> list[str]:
    """Return one sentence for every hospital whose replies weighed nothing."""
    return [
        f"Stage {stage}: {site} {reason}, and weighed nothing."
        for stage, training in results.training.items()
        for site, reason in training.skipped.items()
    ]


def baseline_notes(results: Results) -> list[str]:
    """Return on whom the baseline hazard rests and who is not in it; empty without one."""
    found = results.baseline
    if found is None:
        return []
    months = "month" if found.step_months == 1 else f"{found.step_months} months"
    who = f"{len(found.hospitals)} training hospital{'s' if len(found.hospitals) > 1 else ''}"
    note = (
        f"Risks and survival curves take one baseline hazard for all hospitals (Breslow's), from "
        f"the risk sets of {found.patients:,} patients with {found.events:,} events at {who}, "
        f"summed every {months}."
    )
    left = [
        f"{site} is not in the baseline hazard: {reason}."
        for site, reason in found.left_out.items()
    ]
    return [note, *left]
