"""The study file: what is accepted, and the sentence for what is not."""

from pathlib import Path

import pytest
import yaml

from protocol.config import Hospitals, Study, load_study
from protocol.errors import ConfigError
from protocol.yaml_files import parse, read_yaml

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
SMALL = {"name": "s", "seed": 1, "hospitals": {"train": ["a", "b"], "external": ["c"]}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_study_loads(path: Path) -> None:
    assert load_study(path).name


def test_a_study_survives_the_wire() -> None:
    study = Study.model_validate(SMALL)
    again = Study.model_validate(study.model_dump(mode="json", by_alias=True))
    assert again == study


def test_a_study_is_frozen() -> None:
    study = Study.model_validate(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        study.seed = 2  # type: ignore[misc]


def test_hospitals_come_in_the_order_in_which_sums_are_added() -> None:
    hospitals = Hospitals(train=("pool",), internal=("a", "b"), external=("c",))
    assert hospitals.all == ("pool", "a", "b", "c")
    assert hospitals.validating == ("a", "b", "c")
    assert Hospitals(train=("a",), external=("c",)).validating == ("a", "c")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"colour": "red"}, "s.yaml: unknown key 'colour' in the top level"),
        ({"segment": {"lr": 1}}, "s.yaml: unknown key 'lr' in segment"),
        ({"seed": "one"}, "s.yaml: seed: input should be a valid integer"),
        ({"hospitals": {"train": []}}, "s.yaml: hospitals.train: tuple should have at least 1"),
        ({"hospitals": {"train": ["a", "a"]}}, "a stands twice; name each hospital once"),
        ({"hospitals": {"train": ["../etc"]}}, "s.yaml: hospitals.train.0: string should match"),
        ({"stages": ["validate", "survey"]}, "stages must stand once each in the order survey"),
        ({"holdout": {"fold": 5, "num_folds": 5}}, "fold 5 of 5 does not exist"),
        ({"rounds": {"quorum": 0}}, "s.yaml: rounds.quorum: input should be greater than 0"),
        ({"preprocessing": {"crop_px": 100}}, "input should be a multiple of 16"),
    ],
)
def test_a_wrong_study_is_one_sentence_that_names_the_place(change: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Study, SMALL | change, "s.yaml")
    assert sentence in caught.value.sentence
    assert caught.value.sentence.endswith("correct the file and start again.")


def test_a_missing_file_and_broken_yaml_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not valid YAML at line 2"):
        read_yaml(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text(yaml.safe_dump({"simulation": {}}))
    with pytest.raises(ConfigError, match="has no 'study' section"):
        load_study(tmp_path / "empty.yaml")


def test_python_objects_and_aliases_are_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("a: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_yaml(tmp_path / "evil.yaml")
    (tmp_path / "laughs.yaml").write_text("a: &a [x, x]\nb: [*a, *a]")
    with pytest.raises(ConfigError, match="uses a YAML alias"):
        read_yaml(tmp_path / "laughs.yaml")
    (tmp_path / "big.yaml").write_text("# " + "x" * 300_000)
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        read_yaml(tmp_path / "big.yaml")
