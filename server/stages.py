"""The stages of a study at the centre, each a few messages and what is settled by them."""

from contextlib import closing
from typing import Any

from protocol import audit
from protocol.arrays import Arrays, fingerprint
from protocol.config import Segmentation, Sorting
from protocol.errors import PrivacyError
from protocol.secure_groups import tellers
from protocol.stats import Histogram, LifeTable, Moments, merge_all
from protocol.survival_config import Prognosis
from protocol.training_config import Strategy
from server.agreement import (
    evaluation_horizons,
    interval_hazards,
    merge_moments,
    risk_cuts,
    scales,
    supported_months,
    time_grid,
)
from server.causes import ask_causes
from server.centre import Centre
from server.checkpoints import Checkpoints
from server.evaluation import evaluate, evaluation_plan
from server.findings import Findings
from server.history import RoundEntry, Stage
from server.initial import prognosis_weights, segmentation_weights, sorting_weights
from server.progress import RoundProgress
from server.regression import fit_regression
from server.risk_sets import events_per_hospital, fit_baseline
from server.rounds import run_rounds
from server.starting import starting_weights
from server.subgroups import ask_subgroups
from server.telling import ask_all
from server.tensorboard import EventFiles
from server.two_phase import train_two_phase
from shared_models.heads import choose_head
from strategies import build

__all__ = ["STAGES"]


def survey(centre: Centre, findings: Findings) -> None:
    """Ask what each hospital has; agree scales of the covariates and the time grid."""
    study = centre.study
    # A head that does not exist is found now and not after the segmentation has been trained.
    choose_head(study.prognosis.head)
    findings.survey = ask_all(centre, "query.survey", study.hospitals.all, {})
    if not {"prognosis", "regression"} & set(study.stages):
        return
    training = _surveyed(centre, findings)
    moments = merge_moments([Moments.from_dict(answer["covariates"]) for answer in training])
    findings.agreed["scales"] = scales(moments)
    if "prognosis" in study.stages:
        tables = _life_tables(centre, findings)
        end_months = supported_months(tables)
        findings.agreed["cuts_months"] = time_grid(tables, study.prognosis)
        findings.agreed["horizon_months"] = end_months
        findings.agreed["horizons_months"] = evaluation_horizons(
            study.validate_.horizons_months, end_months
        )


def sort(centre: Centre, findings: Findings) -> None:
    """Train the network that sorts series where the hospitals' rules are unsure."""
    study = centre.study
    first = starting_weights(centre.run_dir, study, "sort", sorting_weights(study))
    findings.sorting = _train(centre, findings, "sort", first, study.sort.strategy)
    findings.agreed["sorting"] = fingerprint(findings.sorting)


def segment(centre: Centre, findings: Findings) -> None:
    """Train the segmentation network on the hospitals that have masks."""
    study = centre.study
    first = starting_weights(centre.run_dir, study, "segment", segmentation_weights(study))
    findings.segmentation = _train(centre, findings, "segment", first, study.segment.strategy)
    findings.agreed["segmentation"] = fingerprint(findings.segmentation)


def measure(centre: Centre, findings: Findings) -> None:
    """Have every hospital measure its own studies; agree the scales of the measurements."""
    hospitals = centre.study.hospitals
    answers = ask_all(
        centre, "query.measure", hospitals.all, findings.agreed, findings.segmentation
    )
    training = tellers(centre.study, hospitals.train)
    moments = [Moments.from_dict(answers[name]["measurements"]) for name in training]
    findings.agreed["scales"] = {
        **findings.agreed.get("scales", {}),
        **scales(merge_moments(moments)),
    }


def regression(centre: Centre, findings: Findings) -> None:
    """Fit the Cox regression; its coefficients travel on, to be judged with the networks.

    There is none where no hospital may answer for its privacy policy.
    """
    try:
        findings.regression, findings.agreed["cox"] = fit_regression(centre, findings)
    except PrivacyError as error:
        audit.append(centre.audit_log, "regression", {"outcome": error.code})


def prognosis(centre: Centre, findings: Findings) -> None:
    """Train the survival network on images, measurements and covariates."""
    study = centre.study
    cuts, tables = findings.agreed["cuts_months"], _life_tables(centre, findings)
    head = choose_head(study.prognosis.head)
    fresh = prognosis_weights(study, interval_hazards(tables, cuts), cuts)
    first = starting_weights(centre.run_dir, study, "prognosis", fresh)
    if head.needs_baseline:
        number = sum(len(told.get("hospitals", [""])) for told in _surveyed(centre, findings))
        findings.agreed["events_per_hospital"] = events_per_hospital(tables, number)
    if head.two_phase:
        findings.prognosis = train_two_phase(centre, findings, first)
    else:
        findings.prognosis = _train(centre, findings, "prognosis", first, study.prognosis.strategy)
    if head.needs_baseline:
        found = findings.baseline = fit_baseline(centre, findings)
        findings.agreed["baseline"] = {
            "grid_months": list(found.grid_months),
            "hazard": list(found.hazard),
        }
    findings.agreed["prognosis"] = fingerprint(findings.prognosis)


def validate(centre: Centre, findings: Findings) -> None:
    """Judge the models on held-out patients and at hospitals that never trained.

    A hospital whose privacy policy forbids an answer is judged on what it does answer.
    """
    study = centre.study
    if findings.sorting:
        _judge(centre, findings, "evaluate.sort", findings.sorting)
    if findings.segmentation:
        _judge(centre, findings, "evaluate.segment", findings.segmentation)
    if findings.regression and study.regression.patients == "training":
        _judge(centre, findings, "evaluate.regression", None)
    if findings.prognosis:
        _judge_prognosis(centre, findings)
    if study.validate_.subgroups:
        findings.subgroups = ask_subgroups(centre, findings)


def _judge(
    centre: Centre,
    findings: Findings,
    question: str,
    arrays: Arrays | None,
    agreed: dict[str, Any] | None = None,
) -> None:
    """Ask the validating hospitals about one model and keep what they answer."""
    sites = centre.study.hospitals.validating
    agreed = findings.agreed if agreed is None else agreed
    answers = ask_all(centre, question, sites, agreed, arrays, may_decline=True)
    for site, document in answers.items():
        findings.validation.setdefault(site, {}).update(document)


def _judge_prognosis(centre: Centre, findings: Findings) -> None:
    study = centre.study
    # Groups are cut on the training patients' scores, before anyone looks at a validation set.
    scores = ask_all(
        centre,
        "query.scores",
        study.hospitals.train,
        findings.agreed,
        findings.prognosis,
        may_decline=True,
    )
    if not scores:
        return
    histograms = [Histogram.from_dict(answer["scores"]) for answer in scores.values()]
    findings.agreed["risk_cuts"] = risk_cuts(histograms, study.validate_.risk_groups)
    findings.agreed["calibration_cuts"] = risk_cuts(histograms, study.validate_.calibration_groups)
    plan = evaluation_plan(centre, findings, histograms)
    agreed = {**findings.agreed, "evaluation": plan.to_dict()}
    _judge(centre, findings, "evaluate.prognosis", findings.prognosis, agreed)
    findings.evaluation = evaluate(centre, findings, plan, _by_horizon(scores))
    if study.prognosis.num_causes > 1:
        findings.causes = ask_causes(centre, findings)


STAGES = {
    "survey": survey,
    "sort": sort,
    "segment": segment,
    "measure": measure,
    "regression": regression,
    "prognosis": prognosis,
    "validate": validate,
}


def _life_tables(centre: Centre, findings: Findings) -> list[LifeTable]:
    return [LifeTable.from_dict(told["life_table"]) for told in _surveyed(centre, findings)]


def _surveyed(centre: Centre, findings: Findings) -> list[dict[str, Any]]:
    """Return what the training hospitals answered to the survey."""
    names = tellers(centre.study, centre.study.hospitals.train)
    return [findings.survey[name] for name in names if name in findings.survey]


def _registered(centre: Centre, findings: Findings, stage: Stage) -> dict[str, int]:
    """Return how many patients each hospital registered; at most, where only all together did."""
    found: dict[str, int] = {}
    for site in centre.study.hospitals.train:
        (name,) = tellers(centre.study, (site,))
        found[site] = findings.survey[name]["can_train"][stage]
    return found


def _by_horizon(scores: dict[str, dict[str, Any]]) -> dict[str, Histogram]:
    """Add the training patients' predictions by each horizon."""
    parts = [answer["scores_at"] for answer in scores.values()]
    return {key: merge_all([Histogram.from_dict(part[key]) for part in parts]) for key in parts[0]}


def _train(
    centre: Centre, findings: Findings, stage: Stage, arrays: Arrays, strategy: Strategy
) -> Arrays:
    study = centre.study
    sections: dict[Stage, Sorting | Segmentation | Prognosis] = {
        "sort": study.sort,
        "segment": study.segment,
        "prognosis": study.prognosis,
    }
    section = sections[stage]
    sites = study.hospitals.train
    progress = RoundProgress(centre.progress, stage, section.rounds)
    centre.progress.step(stage, 0, section.rounds)
    events = EventFiles(centre.run_dir, stage)

    def note(entry: RoundEntry) -> None:
        progress.finished(entry["round"])
        events.add(entry)

    with closing(events):
        trained, findings.history[stage] = run_rounds(
            centre.grid,
            {site: centre.nodes[site] for site in sites},
            stage=stage,
            study=study,
            agreed=findings.agreed,
            arrays=arrays,
            strategy=build(strategy.name, strategy.options),
            num_rounds=section.rounds,
            weight_by=strategy.weight_by,
            in_turn=strategy.ask == "in turn",
            max_patients=_registered(centre, findings, stage),
            checkpoints=Checkpoints(centre.run_dir / stage),
            on_round=note,
            audit=centre.audit_log,
            progress=progress,
        )
    return trained
