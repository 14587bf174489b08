"""The C-index over hospitals: each one's, all pairs together, and the average hospital's."""

import math
from collections.abc import Iterable

from markupsafe import Markup

from protocol.stats import PairCounts
from server.report.style import EXTERNAL, INK, INTERNAL, MUTED, new_figure, svg
from server.results import SiteValidation
from shared_models.metrics.meta_analysis import MetaAnalysis, random_effects

__all__ = ["hospital_forest", "hospitals_together"]


def hospitals_together(parts: Iterable[PairCounts | None]) -> MetaAnalysis | None:
    """Return the random-effects mean of the hospitals' C-indices on the logit scale.

    Hospitals without a pair, or of which no standard error is known, are left out; None below two.
    """
    usable = [
        (part.c_index, part.standard_error**2)
        for part in parts
        if part is not None and 0 < part.c_index < 1 and part.standard_error > 0
    ]
    if len(usable) < 2:
        return None
    estimates, variances = zip(*usable, strict=True)
    return random_effects(estimates, variances, logit=True)


def hospital_forest(
    roles: list[tuple[str, dict[str, SiteValidation], PairCounts | None]],
) -> Markup | None:
    """Return each hospital's C-index with its interval, under them the pooled and average ones.

    Parameters
    ----------
    roles : list
        Title, hospitals, and their pairs together, internal first.
    """
    colours = {"External": EXTERNAL}
    lines = [line for role in roles for line in _lines(role, colours.get(role[0], INTERNAL))]
    if not lines:
        return None
    with new_figure(7.6, 0.9 + 0.32 * len(lines)) as figure:
        panel = figure.subplots()
        for height, (_, value, limits, ahead, colour, marker) in enumerate(reversed(lines)):
            if math.isfinite(ahead[0]):
                panel.plot(ahead, [height, height], color=MUTED, lw=1.0, ls=":")
            if math.isfinite(limits[0]):
                panel.plot(limits, [height, height], color=colour, lw=1.6, solid_capstyle="butt")
            panel.plot([value], [height], marker, color=colour, ms=6)
        panel.axvline(0.5, color=MUTED, lw=0.8, ls="--")
        panel.set_yticks(range(len(lines)), [line[0] for line in reversed(lines)])
        panel.set_xlabel("C-index, pairs within a hospital")
        panel.grid(axis="x", lw=0.4, alpha=0.5)
        return svg(figure, "forest-hospitals", "C-index of every hospital and of all together")


Limits = tuple[float, float]
Line = tuple[str, float, Limits, Limits, str, str]
UNKNOWN = (math.nan, math.nan)


def _lines(
    role: tuple[str, dict[str, SiteValidation], PairCounts | None], colour: str
) -> list[Line]:
    title, sites, together = role
    lines: list[Line] = []
    for name, site in sites.items():
        pairs = site.pairs
        if pairs is not None and pairs.comparable:
            label = f"{name} ({pairs.num_patients} patients, {pairs.num_events} events)"
            lines.append((label, pairs.c_index, pairs.interval(), UNKNOWN, colour, "o"))
    if together is None or not together.comparable or len(lines) < 2:
        return lines
    lines.append((f"{title}, all pairs", together.c_index, together.interval(), UNKNOWN, INK, "s"))
    meta = hospitals_together(site.pairs for site in sites.values())
    if meta is not None:
        ahead = (meta.predicted_low, meta.predicted_high)
        label = f"{title}, average hospital"
        lines.append((label, meta.estimate, (meta.low, meta.high), ahead, INK, "D"))
    return lines
