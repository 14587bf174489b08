"""A card for every trained network: what it is for, whom it learnt from, how well, at what price.

A card is ``model_card.md`` beside the weights: YAML between two lines ``---`` for machines, then a
page for people, both of the same values. It names the weights by their fingerprint and by the
SHA-256 of their file, and ``final.json`` beside them names the card by its own.
"""

import json
from collections.abc import Mapping
from importlib.metadata import metadata
from importlib.resources import files
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from protocol.config import Study
from protocol.errors import PayloadError
from protocol.evaluation import ROLES, Role
from protocol.stats import merge_all
from server.judgements import Overlap, Ranking
from server.report.pooling import main_arm, pooled, sites_of
from server.report.text import DASH, count
from server.results import Results

__all__ = ["CARD", "TASKS", "card_values", "front_matter", "render_card"]

CARD = "model_card.md"
SETS: Mapping[Role, str] = {"train": "internal hold-out", "external": "external"}
TASKS = {
    "sort": "says of a series of a cardiac MR examination which sequence and view it is",
    "segment": "draws LV cavity, myocardium and RV cavity on short-axis cine images",
    "prognosis": "ranks patients by their risk of the endpoint and predicts it",
}


def card_values(
    study: Study,
    results: Results,
    stage: str,
    weights: Mapping[str, str],
    code: str,
    privacy: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a card says, as JSON values that are the same for the same run.

    Parameters
    ----------
    stage : str
        ``"sort"``, ``"segment"`` or ``"prognosis"``.
    weights : mapping
        ``file``, ``sha256`` and ``fingerprint``.
    code : str
        `protocol.code.code_hash` of the centre.
    privacy : mapping
        ``study_releases``: per hospital ``epsilon`` and ``delta`` of all it released in the study;
        ``updates``: those of noise on this network's summed updates. Either may be empty.
    """
    section = getattr(study, stage)
    return {
        "card": 1,
        "name": f"{study.name}/{stage}",
        "task": TASKS[stage],
        "license": {"code": metadata("concors")["License-Expression"], "weights": "not granted"},
        "weights": dict(weights),
        "study": {
            "name": study.name,
            "seed": study.seed,
            "config_sha256": results.study.config_sha256,
            "code": code,
            "code_version": results.study.code_version,
            "simulated": results.study.simulated,
        },
        "training": {
            "network": section.network.model_dump(mode="json"),
            "strategy": section.strategy.model_dump(mode="json"),
            "rounds": section.rounds,
            "preprocessing": study.preprocessing.model_dump(mode="json"),
            "hospitals": _hospitals(results, "train"),
            "external_hospitals": _hospitals(results, "external"),
        },
        "metrics": [*_metrics(results, stage)],
        "privacy": dict(privacy),
        "limits": _limits(results, stage, privacy),
    }


def _hospitals(results: Results, role: Role) -> list[dict[str, Any]]:
    least = results.study.min_cell
    return [
        {
            "name": ", ".join(hospital.together) or hospital.name,
            "patients": DASH if hospital.silent else count(hospital.patients, least),
            "events": DASH if hospital.silent else count(hospital.events, least),
            "vendors": {name: count(n, least) for name, n in hospital.vendors.items()},
            "field_strengths_t": {
                name: count(n, least) for name, n in hospital.field_strengths_t.items()
            },
        }
        for hospital in results.hospitals
        if hospital.role == role
    ]


def _metrics(results: Results, stage: str) -> list[dict[str, Any]]:
    arm = main_arm(results)
    if arm is None:
        return []
    rows = []
    for role in ROLES:
        for metric, values in _judged(results, arm, role, stage):
            rows.append({"set": SETS[role], "metric": metric, **values})
    return rows


def _judged(results: Results, arm: str, role: Role, stage: str) -> list[tuple[str, dict[str, Any]]]:
    part = pooled(results, arm, role)
    if stage == "sort":
        return _sorting(results, arm, role)
    if stage == "prognosis":
        if part.pairs is None or not part.pairs.comparable:
            return []
        ranking = Ranking.of(part.pairs)
        kept = ranking.model_dump(include={"lower", "upper", "patients", "events"})
        return [("C-index within hospitals", {"value": ranking.c_index, **kept})]
    if part.overlap is None:
        return []
    overlap = Overlap.of(part.overlap)
    if overlap.dice is None:
        return []
    kept = overlap.model_dump(include={"lower", "upper", "patients"})
    return [("Dice, mean of classes and phases", {"value": overlap.dice, **kept})]


def _sorting(results: Results, arm: str, role: Role) -> list[tuple[str, dict[str, Any]]]:
    sites = results.arms[arm].sites
    rows = []
    for what in ("sequence", "view"):
        sent = [
            sites[name].sorting[what]
            for name in sites_of(results, role)
            if name in sites and what in sites[name].sorting
        ]
        total = merge_all(sent) if sent else None
        if total is None or not total.n:
            continue
        right = round(total.accuracy * total.n)
        values = {"value": total.accuracy, **_wilson(right, total.n)}
        rows.append((f"Share of series whose {what} is right", values | {"series": total.n}))
    return rows


def _wilson(right: int, total: int) -> dict[str, float]:
    # Here: it takes a second or more to import, and few studies have series to sort.
    from scipy.stats import binomtest

    bounds = binomtest(right, total).proportion_ci(method="wilson")
    return {"lower": bounds.low, "upper": bounds.high}


def _limits(results: Results, stage: str, privacy: Mapping[str, Any]) -> list[str]:
    limits = [
        "Not a medical device: no diagnosis or treatment may rest on it.",
        "It was judged on the hospitals named here; expect less on other scanners, protocols and "
        "patients, and judge it there before it is used.",
    ]
    if results.study.simulated:
        limits.append("Its patients are computer phantoms; it has seen no patient.")
    if not sites_of(results, "external"):
        limits.append("No hospital outside its training has judged it.")
    skipped = results.training[stage].skipped if stage in results.training else {}
    limits += [f"{site} weighed nothing in its training: {why}." for site, why in skipped.items()]
    limits += [
        f"The {broken.which} of {broken.hospital} {broken.how} during the run."
        for broken in results.broken_logs
    ]
    if not privacy.get("updates"):
        silent = sorted(set(sites_of(results, "train")) - set(privacy.get("study_releases", {})))
        if silent:
            limits.append(
                f"Trained without differential privacy at {', '.join(silent)}: nothing bounds what "
                "the weights tell of a patient there."
            )
    return limits


def render_card(values: Mapping[str, Any]) -> str:
    """Return the card as Markdown with the values in its front matter."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(
        (files("server") / "model_card.md.j2").read_text(encoding="utf-8")
    )
    # Through JSON, as results hold numbers of numpy's, which are floats to everybody but YAML.
    plain = json.loads(json.dumps(dict(values)))
    matter = yaml.safe_dump(plain, sort_keys=True, allow_unicode=True, width=100)
    return template.render(matter=Markup(matter), card=values) + "\n"  # noqa: S704 - not HTML


def front_matter(text: str) -> dict[str, Any]:
    """Return the values in a card.

    Raises
    ------
    PayloadError
        If there is no front matter that can be read.
    """
    _, mark, rest = text.partition("---\n")
    matter, end, _ = rest.partition("\n---\n")
    try:
        values = yaml.safe_load(matter) if mark and end else None
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict):
        raise PayloadError(f"{CARD} has no values between two lines ---; write it again.")
    return values
