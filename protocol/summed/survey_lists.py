"""What a secure survey counts: lists that are agreed where a plain one names what occurs."""

from collections.abc import Mapping

__all__ = ["COUNTED", "REFUSED_KINDS", "listed"]

# Numbers of patients (of patients with masks or series for the stages), and person-years with how
# many hospitals can state theirs.
COUNTED = (
    "patients",
    "events",
    "competing_events",
    "person_years",
    "person_years_told",
    "segment",
    "prognosis",
    "sort",
    "noise_variance",
)
# What a hospital could not use; why is for its own engineer.
REFUSED_KINDS = ("ecg", "file", "mask", "outcome", "patient", "series", "stack", "other")


def listed(counts: Mapping[str, int | None], names: tuple[str, ...]) -> dict[str, int]:
    """Return counts of free names as counts over a list that has ``other``."""
    total = dict.fromkeys(names, 0)
    for name, count in counts.items():
        total[name if name in total else "other"] += count or 0
    return total
