"""Training that begins from weights of a finished run."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from protocol.arrays import Arrays, fingerprint
from protocol.config import Study
from protocol.errors import ConfigError
from server.initial import segmentation_weights
from server.starting import begin_from, hand_on, starting_weights

STUDY = Study.model_validate(
    {
        "name": "later",
        "seed": 3,
        "hospitals": {"train": ["north"]},
        "stages": ["segment"],
        "segment": {"network": {"name": "unet", "options": {"channels": [4, 8]}}},
    }
)


def finished(folder: Path, arrays: Arrays) -> Path:
    (folder / "segment").mkdir(parents=True)
    save_file(arrays, folder / "segment" / "final.safetensors")
    return folder


def other_weights() -> Arrays:
    return segmentation_weights(STUDY.model_copy(update={"seed": 8}))


def test_a_study_begins_from_the_weights_it_names(tmp_path: Path) -> None:
    trained = other_weights()
    study = begin_from(STUDY, finished(tmp_path / "a", trained), [tmp_path / "b", tmp_path / "c"])
    assert study.segment.network.start == fingerprint(trained)
    assert study.prognosis.network.start is None
    for folder in ("b", "c"):
        first = starting_weights(tmp_path / folder, study, "segment", segmentation_weights(study))
        assert fingerprint(first) == fingerprint(trained)
        assert list(first) == list(segmentation_weights(study))


def test_without_a_name_it_begins_from_its_own_seed(tmp_path: Path) -> None:
    fresh = segmentation_weights(STUDY)
    assert starting_weights(tmp_path, STUDY, "segment", fresh) is fresh


def test_other_weights_than_those_named_are_refused(tmp_path: Path) -> None:
    study = begin_from(STUDY, finished(tmp_path / "a", other_weights()), [tmp_path])
    place = tmp_path / "start" / "segment.safetensors"
    arrays = load_file(place)
    name = next(iter(arrays))
    save_file({**arrays, name: arrays[name] + 1}, place)
    with pytest.raises(ConfigError, match="not those that segment"):
        starting_weights(tmp_path, study, "segment", segmentation_weights(study))
    place.write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="cannot be read from start/segment"):
        starting_weights(tmp_path, study, "segment", segmentation_weights(study))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    arrays = other_weights()
    arrays.pop(next(iter(arrays)))
    study = begin_from(STUDY, finished(tmp_path / "a", arrays), [tmp_path])
    with pytest.raises(ConfigError, match="do not fit the network of the stage segment"):
        starting_weights(tmp_path, study, "segment", segmentation_weights(study))


def test_a_run_without_final_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no final weights of any stage of study later"):
        begin_from(STUDY, tmp_path, [tmp_path / "b"])


def test_a_derived_run_has_the_same_beginning(tmp_path: Path) -> None:
    study = begin_from(STUDY, finished(tmp_path / "a", other_weights()), [tmp_path / "b"])
    hand_on(tmp_path / "b", tmp_path / "b" / "designs" / "one")
    first = starting_weights(
        tmp_path / "b" / "designs" / "one", study, "segment", segmentation_weights(study)
    )
    assert fingerprint(first) == study.segment.network.start
    hand_on(tmp_path / "none", tmp_path / "d")
    assert not (tmp_path / "d").exists()
