"""Every head through the real apps: trained, judged, and its batches left whole where they must."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from client.shards import num_shards
from protocol.config import Study
from protocol.errors import ConfigError
from protocol.survival_config import Prognosis
from server.initial import prognosis_weights
from shared_models.execution import Execution
from shared_models.heads import HEADS
from shared_models.networks import build


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
COLUMNS = {"num_tabular": 2, "num_intervals": 4}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    sizes = {"h0": 80, "h1": 80, "h2": 60}
    return [
        kit.write_hospital(folder, name, kit.cohort(seed, size), min_cell=5)
        for seed, (name, size) in enumerate(sizes.items())
    ]


def study(network: str, head: str, **options: Any) -> Study:
    plain = {"channels": [], "hidden": 0} if network == "prognosis" else {}
    section = {
        "network": {"name": network, "options": {**plain, "field_dropout": 0.0, **options}},
        "head": head,
        "covariates": ["age", "gene_12"],
        "num_intervals": 5,
        "rounds": 2,
        "training": {"learning_rate": 0.03, "epochs": 6},
    }
    return Study.model_validate(
        {
            "name": f"{network}-{head}",
            "seed": 3,
            "hospitals": {"train": ["h0", "h1"], "external": ["h2"]},
            "stages": ["survey", "prognosis", "validate"],
            "prognosis": section,
            "validate": {"bootstrap": 10},
            "rounds": {"join_s": 5},
        }
    )


@pytest.mark.parametrize(
    ("network", "head"),
    # Competing risks need tables with a second cause: test_competing_risks_study.
    [
        *(("prognosis", head) for head in HEADS if head != "competing_risks"),
        ("tabular", "deephit"),
    ],
)
def test_every_head_learns_the_planted_risk(
    sites: list[Path], tmp_path: Path, network: str, head: str
) -> None:
    results = kit.judge(study(network, head), kit.RecordingGrid(sites, models=True), tmp_path)
    pairs = results.arms["federated"].sites["h2"].pairs
    assert pairs is not None and pairs.c_index > 0.6
    losses = results.training["prognosis"].loss["h0"]
    assert all(np.isfinite(losses))


def test_a_head_that_does_not_exist_is_found_at_the_survey(
    sites: list[Path], tmp_path: Path
) -> None:
    grid = kit.RecordingGrid(sites)
    with pytest.raises(ConfigError, match="Head 'coxian' is unknown; choose one of aft_log"):
        kit.judge(study("tabular", "coxian"), grid, tmp_path)
    assert {topic for _, topic, _ in grid.sent} == {"query.hello"}


def test_the_head_stands_in_one_place() -> None:
    with pytest.raises(ValueError, match=r"another head; write prognosis\.head only"):
        Prognosis.model_validate({"network": {"name": "tabular", "options": {"head": "mtlr"}}})


def test_a_first_prediction_is_the_surveyed_one() -> None:
    hazards, cuts = [0.05, 0.1, 0.02, 0.08, 0.03], [12.0, 24.0, 36.0, 48.0, 60.0]
    for head in ("aft_log_normal", "mtlr", "pc_hazard"):
        section = study("prognosis", head).prognosis
        arrays = prognosis_weights(study("prognosis", head), hazards, cuts)
        model = build(section.network.name, section.network_options()).eval()
        model.load_state_dict({name: torch.from_numpy(v.copy()) for name, v in arrays.items()})
        blank = torch.zeros(1, 0)
        table = torch.zeros(1, 2)
        outputs = model(torch.zeros(1, 3, 0, 1, 1), blank, table, table).detach()
        last = float(1 - HEADS[head].risk(outputs, torch.tensor(cuts)))
        assert last == pytest.approx(float(np.prod(1 - np.array(hazards))), abs=1e-5), head


def test_proportional_needs_hazards() -> None:
    with pytest.raises(ConfigError, match="cannot be proportional with head 'mtlr'"):
        build("prognosis", {**COLUMNS, "head": "mtlr", "proportional": True})


def test_a_start_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="Prognosis start has 3 values; head 'mtlr' needs 4"):
        build("prognosis", {**COLUMNS, "head": "mtlr", "start": [0.0, 0.0, 0.0]})


@pytest.mark.parametrize(("chance", "shares"), [(0.1, 1), (0.0, 3)])
def test_fields_that_are_dropped_are_seen_by_the_threads(chance: float, shares: int) -> None:
    model = build("prognosis", {**COLUMNS, "dropout": 0.0, "field_dropout": chance})
    assert num_shards(model, Execution(threads=3)) == shares
    assert num_shards(model, Execution(threads=3), whole_batches=True) == 1


def test_dropping_fields_draws_what_it_always_drew() -> None:
    model = build("prognosis", {**COLUMNS, "dropout": 0.0, "field_dropout": 0.5}).train()
    table = torch.ones(50, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = torch.rand_like(table) < 0.5
        torch.manual_seed(5)
        assert torch.equal(model.drop_fields(table), expected)
