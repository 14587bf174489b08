"""Cox heads over hospitals through the real apps: trained, given a baseline, judged elsewhere."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from lifelines import CoxPHFitter

from client.hospital import open_hospital
from client.prognosis import outcomes, prognosis_inputs, training_patients
from client.risk_sets import answer, gradient_round
from protocol.config import Study
from protocol.errors import DataError, PayloadError, TrainingError
from protocol.payload import Question, TrainReply, TrainRequest
from protocol.risk_grid import risk_grid
from server.centre import Centre
from server.findings import Findings, to_results
from server.hospitals import join
from server.progress import Progress
from server.report.write import render_report
from server.results import Results
from server.stages import STAGES
from shared_models.heads import choose_head
from shared_models.heads.cox_two_phase import RiskSetSums
from shared_models.networks import build


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
NAMES = ["age", "gene_12"]
LINEAR = {"channels": [], "hidden": 0, "field_dropout": 0.0, "dropout": 0.0}


def monthly(seed: int, size: int) -> dict[str, np.ndarray]:
    """Return patients whose times are whole months, so that a monthly grid is exact."""
    part = kit.cohort(seed, size)
    return {**part, "months": np.ceil(part["months"])}


def write(folder: Path, sizes: dict[str, int], **settings: Any) -> list[Path]:
    return [
        kit.write_hospital(folder, name, monthly(seed, size), **settings)
        for seed, (name, size) in enumerate(sizes.items())
    ]


@pytest.fixture(scope="module")
def open_sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Hospitals that withhold nothing; h2 is external."""
    return write(tmp_path_factory.mktemp("open"), {"h0": 80, "h1": 60, "h2": 70}, min_cell=1)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Hospitals that withhold what is of fewer than five."""
    return write(tmp_path_factory.mktemp("sites"), {"h0": 90, "h1": 90, "h2": 70}, min_cell=5)


def study(head: str, **changes: Any) -> Study:
    section = {
        "network": {"name": "prognosis", "options": LINEAR},
        "head": head,
        "covariates": NAMES,
        "num_intervals": 5,
        "rounds": 3,
        "training": {"learning_rate": 0.05, "epochs": 8, "weight_decay": 0.0},
        **changes.pop("prognosis", {}),
    }
    return Study.model_validate(
        {
            "name": head,
            "seed": 3,
            "hospitals": {"train": ["h0", "h1"], "external": ["h2"]},
            "stages": ["survey", "prognosis", "validate"],
            "prognosis": section,
            "validate": {"bootstrap": 10, "subgroups": False},
            "rounds": {"join_s": 5},
            **changes,
        }
    )


def train(study: Study, grid: Any, folder: Path) -> tuple[Findings, Results]:
    """Run survey and prognosis, and validation if the study has it."""
    nodes = join(grid, study.hospitals.all, study.rounds.join_s)
    centre, findings = Centre(grid, nodes, study, folder, Progress(folder)), Findings()
    for name in study.stages:
        STAGES[name](centre, findings)
    return findings, to_results(study, findings)


@pytest.mark.parametrize("head", ["cox_stratified", "cox_time", "cox_two_phase"])
def test_a_cox_head_is_trained_and_judged_where_it_never_was(
    sites: list[Path], tmp_path: Path, head: str
) -> None:
    changes = (
        {
            "prognosis": {
                "rounds": 12,
                "strategy": {"name": "fedadam", "options": {"learning_rate": 0.1}},
            }
        }
        if head == "cox_two_phase"
        else {}
    )
    grid = kit.RecordingGrid(sites, models=True)
    findings, results = train(study(head, **changes), grid, tmp_path)
    judged = results.arms["federated"].sites["h2"]
    assert judged.pairs is not None and judged.pairs.c_index > 0.65
    evaluated = results.arms["federated"].evaluation["external"]
    assert evaluated.calibration and judged.evaluation is not None
    assert judged.evaluation.brier is not None
    loss = results.training["prognosis"].loss["h0"]
    assert loss[-1] is not None and loss[0] is not None and loss[-1] < loss[0]
    baseline = results.baseline
    assert baseline is not None and baseline.hospitals == ("h0", "h1") and not baseline.left_out
    # Nobody is told apart: no cell of the grid is of one to four patients of a hospital.
    assert (
        baseline.step_months > 1 and baseline.grid_months[-1] == findings.agreed["cuts_months"][-1]
    )
    for _, topic, text in grid.sent:
        if topic == "query.risk_sets" and '"sums"' in text:
            RiskSetSums.from_dict(json.loads(text)["answer"]["sums"]).require_cells(5)
    page = render_report(results)
    assert "baseline hazard" in page and f"every {baseline.step_months} months" in page


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("head", ["cox_stratified", "cox_two_phase"])
def test_long_training_of_a_linear_network_is_the_cox_regression(
    open_sites: list[Path], tmp_path: Path, head: str
) -> None:
    plain = {"strategy": {"name": "fedavg", "options": {}}, "rounds": 40}
    local = {"rounds": 10, "training": {"learning_rate": 0.03, "epochs": 20, "weight_decay": 0.0}}
    chosen = study(
        head, stages=["survey", "prognosis"], prognosis=plain if head == "cox_two_phase" else local
    )
    findings, results = train(chosen, kit.RecordingGrid(open_sites, models=True), tmp_path)
    frame = pooled_frame(open_sites[:2], chosen, findings)
    strata = {"strata": ["site"]} if head == "cox_stratified" else {}
    reference = CoxPHFitter().fit(
        frame if strata else frame.drop(columns="site"), "months", "event", **strata
    )
    weights = findings.prognosis["linear.weight"][0] + findings.prognosis["fusion.0.weight"][0]
    close = 0.06 if head == "cox_stratified" else 0.03
    np.testing.assert_allclose(weights[:2], reference.params_.to_numpy(), atol=close)
    baseline = results.baseline
    assert baseline is not None and baseline.step_months == 1
    # Breslow's baseline of these very coefficients, by hand.
    score = np.exp(
        frame[NAMES].to_numpy() @ weights[:2].astype(np.float64)
        + float(findings.prognosis["baseline"][0])
    )
    months, event = frame["months"].to_numpy(), frame["event"].to_numpy()
    for month, hazard in zip(baseline.grid_months, baseline.hazard, strict=True):
        deaths = ((months == month) & (event == 1)).sum()
        assert hazard == pytest.approx(deaths / score[months >= month].sum(), rel=1e-6)


def pooled_frame(sites: list[Path], study: Study, findings: Findings) -> Any:
    import pandas as pd

    parts = []
    end = findings.agreed["cuts_months"][-1]
    for site in sites:
        hospital = open_hospital(site, study)
        patients = training_patients(hospital)
        months, event = outcomes(patients, choose_head(study.prognosis.head))
        x = prognosis_inputs(hospital, study, findings.agreed, patients)["tabular"].double()
        frame = pd.DataFrame(x.numpy(), columns=NAMES)
        parts.append(
            frame.assign(
                months=np.minimum(months, end), event=event * (months <= end), site=site.name
            )
        )
    return pd.concat(parts, ignore_index=True)


class GradientGrid(kit.RecordingGrid):
    """Keeps the replies of the second phase."""

    def _noted(self, reply: Message) -> Message:
        if reply.metadata.message_type == "train.gradient" and not reply.has_error():
            kept = TrainReply.from_records(reply.content, "The reply")
            arrays = {name: array.copy() for name, array in kept.arrays.items()}
            self.gradients = [*getattr(self, "gradients", []), arrays]
        return super()._noted(reply)


def test_the_gradients_on_the_wire_add_up_to_the_pooled_one(
    open_sites: list[Path], tmp_path: Path
) -> None:
    options = {"channels": [], "hidden": 4, "field_dropout": 0.3, "dropout": 0.2}
    section = {"network": {"name": "prognosis", "options": options}, "rounds": 2}
    chosen = study("cox_two_phase", stages=["survey", "prognosis"], prognosis=section)
    grid = GradientGrid(open_sites, models=True)
    kept: list[dict[str, np.ndarray]] = []
    first = chosen.model_copy(
        update={"prognosis": chosen.prognosis.model_copy(update={"rounds": 1})}
    )
    findings, _ = train(first, kit.RecordingGrid(open_sites, models=True), tmp_path / "one")
    kept.append(findings.prognosis)
    _, _ = train(chosen, grid, tmp_path / "two")
    # The second step's gradient is taken at the weights after the first.
    model = build("prognosis", chosen.prognosis.network_options()).double().eval()
    model.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in kept[0].items()})
    frame = pooled_frame(open_sites[:2], chosen, findings)
    blank = torch.zeros(len(frame), 0)
    table = torch.from_numpy(frame[NAMES].to_numpy().copy())
    f = model(torch.zeros(len(frame), 3, 0, 1, 1).double(), blank, table, torch.zeros_like(table))
    months, event = (torch.from_numpy(frame[k].to_numpy().copy()) for k in ("months", "event"))
    pooled_nll = f.new_zeros(())
    for i in torch.nonzero(event).squeeze(1):
        pooled_nll = pooled_nll + f[months >= months[i], 0].logsumexp(0) - f[i, 0]
    pooled_nll.backward()
    h0, h1 = grid.gradients[2:]
    for name, parameter in model.named_parameters():
        assert h0[name].dtype == np.float64 and parameter.grad is not None
        together, expected = h0[name] + h1[name], parameter.grad.numpy()
        np.testing.assert_allclose(together, expected, rtol=0, atol=1e-10)
    assert max(abs(h0["fusion.0.weight"]).max(), abs(h1["fusion.0.weight"]).max()) > 1e-3


def test_a_hospital_without_events_is_skipped_and_said(tmp_path: Path) -> None:
    sites = write(tmp_path, {"h0": 90, "h1": 90, "h2": 70}, min_cell=5)
    quiet = kit.cohort(7, 60)
    quiet["months"], quiet["event"] = np.ceil(quiet["months"]), np.zeros(60, int)
    sites.append(kit.write_hospital(tmp_path, "quiet", quiet, min_cell=5))
    hospitals = {"train": ["h0", "h1", "quiet"], "external": ["h2"]}
    chosen = study("cox_stratified", hospitals=hospitals, stages=["survey", "prognosis"])
    findings, results = train(chosen, kit.RecordingGrid(sites, models=True), tmp_path)
    assert list(results.training["prognosis"].skipped) == ["quiet"]
    assert all(entry["sites"]["quiet"]["weight"] == 0 for entry in findings.history["prognosis"])
    assert "quiet has no event among its training patients" in render_report(results)
    without = study("cox_stratified", stages=["survey", "prognosis"])
    others, _ = train(without, kit.RecordingGrid(sites, models=True), tmp_path / "others")
    # The agreed scales are of three hospitals; the steps are of two.
    assert (
        findings.history["prognosis"][0]["sites"]["h0"]["weight"]
        == (others.history["prognosis"][0]["sites"]["h0"]["weight"])
    )


def test_a_hospital_too_small_for_any_grid_is_named(tmp_path: Path) -> None:
    sites = write(tmp_path, {"h0": 90, "h1": 90, "h2": 70}, min_cell=5)
    few = kit.cohort(9, 40)
    few["event"] = np.where(np.arange(40) < 3, 1, 0)
    sites.append(kit.write_hospital(tmp_path, "few", few, min_cell=5))
    hospitals = {"train": ["h0", "h1", "few"], "external": ["h2"]}
    stages = ["survey", "prognosis"]
    exact = study("cox_two_phase", hospitals=hospitals, stages=stages)
    with pytest.raises(TrainingError, match="few cannot take part in exact Cox training: on no gr"):
        train(exact, kit.RecordingGrid(sites, models=True), tmp_path / "exact")
    stratified = study("cox_stratified", hospitals=hospitals, stages=stages)
    _, results = train(stratified, kit.RecordingGrid(sites, models=True), tmp_path / "own")
    assert results.baseline is not None
    assert list(results.baseline.left_out) == ["few"] and "few" not in results.baseline.hospitals
    assert "few is not in the baseline hazard" in render_report(results)


@pytest.fixture
def asked(sites: list[Path], tmp_path: Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    chosen = study("cox_two_phase", stages=["survey", "prognosis"], prognosis={"rounds": 1})
    findings, _ = train(chosen, kit.RecordingGrid(sites, models=True), tmp_path)

    def ask(**changes: Any) -> tuple[Any, dict[str, Any]]:
        agreed = {**findings.agreed, "risk_sets": {"step_months": 1, **changes}}
        return (open_hospital(sites[0], chosen), chosen, findings.prognosis), agreed

    return ask


def test_a_hospital_answers_no_grid_that_is_too_fine_for_it(
    asked: Callable[..., tuple[Any, dict[str, Any]]],
) -> None:
    (hospital, chosen, arrays), agreed = asked()
    with pytest.raises(DataError, match="Cox grid"):
        answer(hospital, Question(chosen, "risk_sets", agreed, arrays))
    steps = answer(hospital, Question(chosen, "risk_sets", agreed)).document["steps"]
    assert 1 not in steps and steps
    agreed["risk_sets"]["step_months"] = steps[0]
    sums = answer(hospital, Question(chosen, "risk_sets", agreed, arrays)).document["sums"]
    agreed["risk_sets"]["pooled"] = sums
    request = TrainRequest(chosen, "prognosis", 1, agreed, arrays)
    assert gradient_round(hospital, request).num_patients == 72
    fewer = {**sums, "at_risk": [0] * len(sums["at_risk"]), "events": [0] * len(sums["events"])}
    agreed["risk_sets"]["pooled"] = fewer
    with pytest.raises(PayloadError, match="do not hold the patients of h0"):
        gradient_round(hospital, request)


def test_the_same_seed_gives_the_same_bytes_and_a_run_is_resumed(
    sites: list[Path], tmp_path: Path
) -> None:
    chosen = study("cox_two_phase", stages=["survey", "prognosis"])
    first, _ = train(chosen, kit.RecordingGrid(sites, models=True), tmp_path / "a")
    grid = kit.RecordingGrid(sites, models=True)
    again, _ = train(chosen, grid, tmp_path / "a")
    assert not [topic for _, topic, _ in grid.sent if topic == "train.gradient"]
    anew, _ = train(chosen, kit.RecordingGrid(sites, models=True), tmp_path / "b")
    for name, array in first.prognosis.items():
        assert array.tobytes() == again.prognosis[name].tobytes() == anew.prognosis[name].tobytes()


def test_cox_heads_weigh_by_events() -> None:
    assert study("cox_time").prognosis.strategy.weight_by == "events"
    assert study("cox_two_phase").prognosis.strategy.name == "fedadam"
    assert study("deephit").prognosis.strategy.weight_by == "patients"
    with pytest.raises(ValueError, match="the head cox_stratified weighs hospitals by events"):
        study("cox_stratified", prognosis={"strategy": {"weight_by": "patients"}})


def test_a_grid_ends_where_the_study_ends() -> None:
    assert risk_grid(24.0, 6) == (6.0, 12.0, 18.0, 24.0)
    assert risk_grid(25.0, 12) == (12.0, 24.0, 25.0)
    assert risk_grid(5.0, 12) == (5.0,)
    assert len(risk_grid(60.0, 1)) == 60
