"""One HTML file from a study's results: no link, no script, the same bytes for the same results."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from scipy.special import chdtrc

from privacy.audit.document import AuditDocument
from protocol.evaluation import ROLES
from protocol.stats import Calibration, LifeTable
from server.report.agreement_figure import agreement_figure
from server.report.audit_table import audit_table
from server.report.baseline_notes import baseline_notes, skipped_notes
from server.report.cause_table import cause_table
from server.report.cohort_table import cohort_table, label_of, secure_notes
from server.report.designs import design_parts
from server.report.evaluation import evaluation_table, judgement
from server.report.evaluation_figures import calibration_curves, decision_curves, decision_note
from server.report.examples import CONTOURS, Example, example_figure
from server.report.meta_analysis import hospital_forest
from server.report.missed_notes import missed_notes
from server.report.noise import noise_notes, noised_roles
from server.report.penalty_table import penalty_table
from server.report.pooling import main_arm, pooled
from server.report.regression_table import regression_note, regression_table
from server.report.subgroup_table import subgroup_figure, subgroup_table
from server.report.summary import key_figures, summary_sentences
from server.report.survival_figures import (
    calibration_figure,
    forest_figure,
    kaplan_meier_figure,
)
from server.report.text import number, p_value
from server.report.traffic_table import traffic_table
from server.report.training_figure import training_figure
from server.report.validation_tables import (
    agreement_table,
    arm_overlap_table,
    arm_rows,
    concordance_by_hospital,
    concordance_table,
    overlap_table,
)
from server.results import Results, SiteValidation

__all__ = ["render_report", "write_report"]

TITLES = ("Internal hold-out", "External")


def write_report(
    results: Results | Mapping[str, Any],
    path: Path,
    *,
    examples: Sequence[Example] = (),
    audit: AuditDocument | None = None,
) -> None:
    """Write the report of a study as one self-contained HTML file.

    Parameters
    ----------
    results : Results or mapping
        See `server.results`; a mapping is checked first.
    path : Path
        File to write; its folder must exist.
    examples : sequence of Example
        Images to show. Only phantoms may be shown: an image never leaves a hospital.
    audit : AuditDocument, optional
        What attacks on such networks found.

    Raises
    ------
    PayloadError
        If the results do not have the schema, or sums of two hospitals do not match.
    """
    path.write_text(render_report(results, examples=examples, audit=audit), encoding="utf-8")


def render_report(
    results: Results | Mapping[str, Any],
    *,
    examples: Sequence[Example] = (),
    audit: AuditDocument | None = None,
) -> str:
    """Return the report's HTML (see `write_report`)."""
    checked = results if isinstance(results, Results) else Results.of(dict(results))
    folder = files("server.report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    style = Markup((folder / "report.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return template.render(
        style=style,
        results=checked,
        study=checked.study,
        sentences=summary_sentences(checked),
        key_figures=key_figures(checked),
        cohort=cohort_table(checked),
        noise_notes=[*secure_notes(checked), *noise_notes(checked)],
        label_of=label_of,
        training=training_figure(checked),
        missed_banners=missed_notes(checked, to_the_end=True),
        training_notes=[*skipped_notes(checked), *missed_notes(checked, to_the_end=False)],
        traffic=traffic_table(checked),
        baseline_notes=baseline_notes(checked),
        causes=cause_table(checked),
        examples=[(item, example_figure(item, index)) for index, item in enumerate(examples)],
        contours=CONTOURS,
        audit=audit,
        attacks=audit_table(audit),
        **_segmentation(checked),
        **_survival(checked),
        **_evaluation(checked),
        subgroups=subgroup_table(checked),
        subgroup_forest=subgroup_figure(checked),
        **design_parts(checked),
    )


def _parts(results: Results) -> list[tuple[str, bool, SiteValidation]]:
    arm = main_arm(results)
    if arm is None:
        return []
    return [
        (title, role == "external", pooled(results, arm, role))
        for role, title in zip(ROLES, TITLES, strict=True)
    ]


def _segmentation(results: Results) -> dict[str, Any]:
    rows = [(title, external, part.agreement) for title, external, part in _parts(results)]
    return {
        "overlap": overlap_table(results),
        "arm_overlap": arm_overlap_table(results),
        "agreement": agreement_table(results),
        "agreement_plots": agreement_figure(rows),
    }


def _survival(results: Results) -> dict[str, Any]:
    parts = _parts(results)
    tables = [(title, part.life_table) for title, _, part in parts if part.life_table]
    scores = [(title, ext, part.calibration) for title, ext, part in parts if part.calibration]
    return {
        "regression": regression_table(results),
        "regression_note": regression_note(results),
        "penalties": penalty_table(results),
        "concordance": concordance_table(results),
        "concordance_sites": concordance_by_hospital(results),
        "forest": forest_figure(arm_rows(results)),
        "kaplan_meier": kaplan_meier_figure(tables),
        "kaplan_meier_notes": [_life_table_note(*item, _summed(results)) for item in tables],
        "calibration": calibration_figure(scores),
        "calibration_notes": [
            _calibration_note(title, sums, _summed(results)) for title, _, sums in scores
        ],
    }


def _evaluation(results: Results) -> dict[str, Any]:
    found = [(title, judgement(results, role)) for role, title in zip(ROLES, TITLES, strict=True)]
    parts = [(title, judged) for title, judged in found if judged is not None]
    roles = [(title, judged.sites, judged.total.pairs) for title, judged in parts]
    notes = (decision_note(title, judged) for title, judged in parts)
    return {
        "evaluations": [
            (title, evaluation_table(judged, noised=judged.role in noised_roles(results)))
            for title, judged in parts
        ],
        "hospital_forest": hospital_forest(roles),
        "calibration_curves": calibration_curves(parts),
        "decision_curves": decision_curves(parts),
        "decision_notes": [note for note in notes if note],
    }


def _summed(results: Results) -> bool:
    """Whether figures are of hospitals together, so that none of them withheld anything."""
    return any(hospital.together for hospital in results.hospitals)


def _life_table_note(title: str, table: LifeTable, summed: bool = False) -> str:
    statistic, freedom = table.log_rank()
    note = f"{title}: "
    if np.isfinite(statistic):
        p = p_value(float(chdtrc(freedom, statistic)))
        note += f"log-rank χ² = {number(statistic, 1)} ({freedom} d.f.), p {p}"
    else:
        note += "too few groups for a log-rank test"
    hidden = [
        f"{name} risk" + ("" if summed else f" at {count} hospital{'s' if count > 1 else ''}")
        for name, count in zip(table.names, table.withheld.tolist(), strict=True)
        if count
    ]
    if hidden:
        note += f"; withheld as too small: {', '.join(hidden)}, so the curve is that of the others"
    if table.coarse_months:
        note += f"; counts spread over spans of up to {table.coarse_months:g} months"
    return note + "."


def _calibration_note(title: str, sums: Calibration, summed: bool = False) -> str:
    slope, intercept = sums.slope()
    ratio = sums.observed_over_expected()
    note = (
        f"{title}: slope {number(slope, 2)}, intercept {number(intercept, 2)}, "
        f"observed/expected {number(ratio, 2)}"
    )
    hidden = int(sums.table.withheld.sum())
    whose = "" if summed else " of single hospitals"
    return note + (f"; {hidden} small groups{whose} withheld" if hidden else "") + "."
