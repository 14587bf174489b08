"""A run's folder: members, study and manifest, and when a resumed run is signed anew."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from deployment.certificates import new_key
from deployment.papers import make_request, read_manifest
from protocol import audit
from protocol.arrays import fingerprint
from protocol.code import code_hash
from protocol.config import Study, load_study
from protocol.documents import digest
from protocol.errors import ConfigError
from server.admission import admit, revoke
from server.consortium import Consortium, Settings
from server.founding import create
from server.initial import prognosis_weights
from server.manifest import traffic
from server.run_folders import new_run, resume_run, stop_run
from server.run_state import read

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def study(**changes: Any) -> Study:
    network = {"name": "prognosis", "options": {"channels": [], "hidden": 0}}
    section = {"network": network, "covariates": ["age"], "num_intervals": 4, "rounds": 7}
    values = {
        "name": "follow",
        "seed": 1,
        "hospitals": {"train": ["alder"], "external": ["birch"]},
        "stages": ["survey", "prognosis"],
        "prognosis": section,
        **changes,
    }
    return Study.model_validate(values)


def with_prognosis(**changes: Any) -> Study:
    return study(prognosis=study().prognosis.model_dump(by_alias=True) | changes)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    made = create(tmp_path / "c", Settings(name="cordis", address="a:1"), now=NOW)
    for name in ("alder", "birch"):
        request = make_request(name, new_key(), version="0.1.0", now=NOW)
        admit(made, request, replace_key=False, now=NOW)
    return made


def start(consortium: Consortium, one: Study, now: datetime = NOW) -> Path:
    return new_run(consortium, one, now=now, lifetime=DAY)


def manifest_of(consortium: Consortium, folder: Path, now: datetime = NOW) -> dict[str, Any]:
    key = consortium.run_key().public_key().public_bytes_raw().hex()
    return read_manifest((folder / "manifest.json").read_text(), coordinator_key=key, now=now)


def test_the_manifest_says_what_would_run_and_travel(consortium: Consortium) -> None:
    one = study()
    folder = start(consortium, one)
    assert folder.name == "follow-1"
    assert load_study(folder / "study.yaml") == one
    assert read(folder).state == "running"
    manifest = manifest_of(consortium, folder)
    assert manifest["consortium"] == "cordis"
    assert manifest["study_hash"] == digest(one.model_dump(mode="json", by_alias=True))
    assert manifest["code_hash"] == code_hash()
    assert manifest["expires"] == (NOW + DAY).isoformat()
    weights = prognosis_weights(one)
    megabytes = sum(array.nbytes for array in weights.values()) / 2**20
    assert manifest["stages"] == {
        "prognosis": {
            "weights": fingerprint(weights),
            "rounds": 7,
            "down_mb": round(megabytes, 3),
            "up_mb": round(megabytes, 3),
        }
    }


def test_control_variates_go_down_and_not_up() -> None:
    (plain,) = traffic(study()).values()
    (with_variate,) = traffic(
        with_prognosis(strategy={"name": "scaffold"}, training={"optimizer": "sgd"})
    ).values()
    assert with_variate.down_mb == 2 * plain.down_mb
    assert with_variate.up_mb == plain.up_mb


def test_weights_that_the_survey_sets_are_not_promised() -> None:
    (piecewise,) = traffic(with_prognosis(head="pmf")).values()
    assert piecewise.weights is None
    start = "ab" * 32
    network = {"name": "prognosis", "options": {"channels": [], "hidden": 0}, "start": start}
    (given,) = traffic(with_prognosis(head="pmf", network=network)).values()
    assert given.weights == start


def test_serials_rise_whatever_the_clock_does(consortium: Consortium) -> None:
    folders = [start(consortium, study(), now) for now in (NOW, NOW, NOW - 300 * DAY)]
    assert [folder.name for folder in folders] == ["follow-1", "follow-2", "follow-3"]
    times = (NOW, NOW, NOW - 300 * DAY)
    serials = [manifest_of(consortium, f, t)["serial"] for f, t in zip(folders, times, strict=True)]
    assert serials == [int(NOW.timestamp()) + k for k in range(3)]


def test_hospitals_that_are_no_members_are_named(consortium: Consortium) -> None:
    revoke(consortium, "birch", now=NOW)
    more = study(hospitals={"train": ["alder", "cedar"], "external": ["birch"]})
    with pytest.raises(ConfigError, match=r"^cedar, birch of study follow did not join"):
        start(consortium, more)
    assert not list(consortium.runs.iterdir())


def test_a_resumed_run_is_signed_anew_only_for_another_study_or_time(
    consortium: Consortium,
) -> None:
    folder = start(consortium, study())
    first = (folder / "manifest.json").read_bytes()
    stop_run(consortium, folder)
    assert resume_run(consortium, folder, now=NOW, lifetime=DAY).state == "running"
    assert (folder / "manifest.json").read_bytes() == first
    stop_run(consortium, folder)
    values = yaml.safe_load((folder / "study.yaml").read_text())
    values["study"]["rounds"]["deadline_s"] = 7200
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    resume_run(consortium, folder, now=NOW, lifetime=DAY)
    second = manifest_of(consortium, folder)
    assert second["study"]["rounds"]["deadline_s"] == 7200
    assert second["serial"] == int(NOW.timestamp()) + 1
    stop_run(consortium, folder)
    resume_run(consortium, folder, now=NOW + 2 * DAY, lifetime=DAY)
    assert manifest_of(consortium, folder, NOW + 2 * DAY)["serial"] > second["serial"]
    events = [line["event"] for line in audit.read(consortium.root / "audit.jsonl")]
    assert events[3:] == ["run", "stop", "resume", "stop", "resume", "stop", "resume"]


def test_training_begins_from_a_finished_runs_weights(
    consortium: Consortium, tmp_path: Path
) -> None:
    trained = {n: np.full_like(a, 0.5) for n, a in prognosis_weights(study()).items()}
    (tmp_path / "done" / "prognosis").mkdir(parents=True)
    save_file(trained, tmp_path / "done" / "prognosis" / "final.safetensors")
    folder = new_run(consortium, study(), now=NOW, lifetime=DAY, start_from=tmp_path / "done")
    stages = manifest_of(consortium, folder)["stages"]
    assert stages["prognosis"]["weights"] == fingerprint(trained)
    assert load_study(folder / "study.yaml").prognosis.network.start == fingerprint(trained)
    assert (folder / "start" / "prognosis.safetensors").is_file()
    with pytest.raises(ConfigError, match="has no final weights of any stage"):
        new_run(consortium, study(), now=NOW, lifetime=DAY, start_from=tmp_path)
    assert [path.name for path in consortium.runs.iterdir()] == ["follow-1"]
