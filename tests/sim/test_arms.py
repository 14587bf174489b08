"""Arms of a comparison are ordinary studies over other hospitals."""

from pathlib import Path

import pytest
import yaml

from protocol.config import Study, load_study
from protocol.errors import ConfigError
from protocol.training_config import Strategy
from sim.arms import make_arms
from sim.simulation import load_simulation

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STUDY = Study.model_validate(
    {"name": "s", "seed": 3, "hospitals": {"train": ["a", "b"], "external": ["c"]}}
)


def test_every_arm_is_judged_on_the_same_external_hospital(tmp_path: Path) -> None:
    sites = {name: tmp_path / name for name in STUDY.hospitals.all}
    arms = make_arms(STUDY, sites, tmp_path / "run", ["pooled", "local"])
    assert [arm.name for arm in arms] == ["federated", "pooled", "local/a", "local/b"]
    studies = [load_study(arm.study_file) for arm in arms]
    assert {study.hospitals.external for study in studies} == {("c",)}
    assert {study.seed for study in studies} == {3}
    assert len({study.name for study in studies}) == 4
    pooled = studies[1].hospitals
    assert (pooled.train, pooled.internal) == (("pooled",), ("a", "b"))
    assert pooled.validating == STUDY.hospitals.validating
    assert [len(arm.sites) for arm in arms] == [3, 4, 2, 2]


def test_an_arm_of_one_hospital_has_nothing_to_aggregate(tmp_path: Path) -> None:
    strategy = Strategy(name="fedavgm", options={"momentum": 0.5})
    segment = STUDY.segment.model_copy(update={"strategy": strategy})
    study = STUDY.model_copy(update={"segment": segment})
    sites = {name: tmp_path / name for name in STUDY.hospitals.all}
    arms = make_arms(study, sites, tmp_path / "run", ["pooled", "local"])
    assert [arm.study.segment.strategy.name for arm in arms] == ["fedavgm", *["fedavg"] * 3]


def test_the_pooled_archive_names_its_members(tmp_path: Path) -> None:
    sites = {name: tmp_path / name for name in STUDY.hospitals.all}
    arms = make_arms(STUDY, sites, tmp_path / "run", ["pooled"])
    settings = yaml.safe_load((arms[1].sites[0] / "site.yaml").read_text())
    assert settings["members"] == [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_simulation_loads(path: Path) -> None:
    study, simulation = load_simulation(path)
    if simulation.phantom is not None:
        made = {hospital.name for hospital in simulation.phantom.hospitals}
        assert set(study.hospitals.all) <= made


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"extra": 1}, "unknown section 'extra'; remove it"),
        ({"simulation": {}}, "name one source of hospitals, phantom, acdc or survival"),
        ({"simulation": {"acdc": {}, "colour": 1}}, "unknown key 'colour'"),
        ({"simulation": None}, "simulation"),
    ],
)
def test_a_wrong_simulation_is_one_sentence(tmp_path: Path, change: dict, sentence: str) -> None:
    path = tmp_path / "s.yaml"
    study = STUDY.model_dump(mode="json", by_alias=True)
    path.write_text(yaml.safe_dump({"study": study, "simulation": {"acdc": {}}} | change))
    with pytest.raises(ConfigError) as caught:
        load_simulation(path)
    assert sentence in caught.value.sentence
