"""A picture of a ledger: epsilon of each study and of everything, reservation by reservation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from privacy.accountant import epsilon
from privacy.ledger import Entry
from privacy.policy import PrivacyPolicy
from protocol.errors import ConfigError

__all__ = ["draw_spent"]


def draw_spent(
    path: Path, entries: Sequence[Entry], policy: PrivacyPolicy | None, delta: float
) -> None:
    """Write an SVG file of what was spent at ``delta``; equal ledgers give equal bytes.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    # Wide, so that it is seen behind the line of an only study.
    wide: dict[str, Any] = {"color": "black", "linewidth": 3.5}
    axes.step(*_line(entries, None, delta), where="post", label="everything", **wide)
    for study in dict.fromkeys(entry.study for entry in entries):
        axes.step(*_line(entries, study, delta), where="post", label=study)
    if policy is not None:
        axes.axhline(policy.lifetime_epsilon, color="black", linestyle="--", linewidth=1)
        axes.axhline(policy.study_epsilon, color="grey", linestyle=":", linewidth=1)
        for cap in ("lifetime", "study"):
            place = (0, getattr(policy, f"{cap}_epsilon"))
            axes.annotate(f"{cap} cap", place, (4, 2), textcoords="offset points", va="bottom")
    axes.set(xlabel="reservation", ylabel=f"epsilon at delta {delta:g}", xlim=(0, None))
    axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right upper", frameon=False)
    try:
        with mpl.rc_context({"svg.hashsalt": "spent"}):
            figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise ConfigError(
            f"the plot cannot be written ({error.strerror}); give --plot a file in a folder that "
            "exists and can be written."
        ) from error


def _line(
    entries: Sequence[Entry], study: str | None, delta: float
) -> tuple[list[int], list[float]]:
    """Return numbers of reservations, and epsilon after each."""
    counts, values = [0], [0.0]
    history = []
    for number, entry in enumerate(entries, start=1):
        if study not in (None, entry.study):
            continue
        history.append(entry.spend)
        told = entry.lifetime_epsilon if study is None else entry.study_epsilon
        # What stands in the ledger was reckoned at the delta of its day.
        value = told if entry.delta == delta else epsilon(history, delta)
        counts.append(number)
        values.append(max(values[-1], value))
    # The last level needs a width to be seen.
    return [*counts, len(entries) + 1], [*values, values[-1]]
