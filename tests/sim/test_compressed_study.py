"""A compressed study through the real apps: killed, resumed, with policies, and to its report."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.app import Message
from safetensors.numpy import load_file

from client.policy import site_ledger
from protocol.arrays import layout
from protocol.compression import DELTA, Codec, encoded_size
from protocol.config import Study
from server.checkpoints import hash_file


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
THREE = {"h0": 0, "h1": 1, "h2": 2}
INT8 = {"up": "int8", "down": "int8"}
TERMS: dict[str, Any] = {
    "noise_multiplier": 2.0,
    "clip_norm": 1.0,
    "sampling_rate": 0.5,
    "steps_per_round": 2,
    "max_rounds": 20,
    "delta": 1e-3,
    "study_epsilon": 200.0,
    "lifetime_epsilon": 200.0,
    "statistics_noise": 2.0,
}


class Killed(BaseException):
    """Stands for the signal that ends the centre's process."""


class WatchedGrid(kit.RecordingGrid):  # type: ignore[name-defined, misc]
    """Keeps the arrays of the replies to training, and ends the run after so many of them."""

    def __init__(self, sites: list[Path], after: int = 1000) -> None:
        super().__init__(sites, models=True)
        self.left = after
        self.came: list[dict[str, int]] = []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies: list[Message] = super().pull_messages(message_ids)
        for reply in replies:
            if reply.metadata.message_type == "train.prognosis" and not reply.has_error():
                arrays = reply.content["arrays"]
                self.came.append({name: len(array.data) for name, array in arrays.items()})
                self.left -= 1
        if self.left < 0:
            raise Killed
        return replies


def hospitals(folder: Path) -> list[Path]:
    folder.mkdir()
    return [
        kit.write_hospital(folder, name, kit.cohort(seed, 60), min_cell=5)
        for name, seed in THREE.items()
    ]


def study(compression: dict[str, Any], **strategy: Any) -> Study:
    training = {"learning_rate": 0.02, "epochs": 2, "batch_size": 20}
    section = {
        "network": {"name": "tabular", "options": {"hidden": [24, 24], "field_dropout": 0.0}},
        "covariates": ["age", "gene_12"],
        "num_intervals": 4,
        "rounds": 3,
        "training": training,
        "strategy": strategy,
    }
    return Study.model_validate(
        {
            "name": "packed",
            "seed": 3,
            "hospitals": {"train": list(THREE)},
            "stages": ["survey", "prognosis"],
            "prognosis": section,
            "rounds": {"join_s": 5, "compression": compression},
            "ranges": {"gene_12": [-5.0, 5.0]},
        }
    )


def final(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(folder / "prognosis" / "final.safetensors")
    return found


# Replies of three rounds of three: the end of round 1, and the midst of round 2.
@pytest.mark.parametrize("after", [3, 5])
def test_killed_and_resumed_it_ends_with_the_same_bytes_at_both_ends(
    tmp_path: Path, after: int
) -> None:
    ours = study(INT8, name="fedadam")
    whole = hospitals(tmp_path / "whole")
    kit.judge(ours, WatchedGrid(whole), tmp_path / "run")
    sites = hospitals(tmp_path / "sites")
    with pytest.raises(Killed):
        kit.judge(ours, WatchedGrid(sites, after), tmp_path / "part")
    kit.judge(ours, WatchedGrid(sites), tmp_path / "part")
    for name in ("round-00003", "final"):
        file = f"prognosis/{name}.safetensors"
        assert hash_file(tmp_path / "part" / file) == hash_file(tmp_path / "run" / file)
    for one, other in zip(whole, sites, strict=True):
        for way in ("uplink", "downlink"):
            place = f".concors/studies/packed/{way}/prognosis/round-00003.safetensors"
            assert load_file(one / place).keys() == load_file(other / place).keys()
            for name, array in load_file(one / place).items():
                assert array.tobytes() == load_file(other / place)[name].tobytes()


def test_int8_trains_nearly_what_whole_models_train_in_fewer_bytes(
    tmp_path: Path,
) -> None:
    sites = hospitals(tmp_path / "sites")
    kit.judge(study({}), WatchedGrid(sites), tmp_path / "plain")
    exact = final(tmp_path / "plain")
    for site in sites:
        assert not list((site / ".concors" / "studies" / "packed").rglob("*link"))
    grid = WatchedGrid(sites)
    kit.judge(study(INT8), grid, tmp_path / "packed")
    size = encoded_size(layout(exact), Codec("int8"))
    assert len(grid.came) == 9
    for arrays in grid.came:
        assert list(arrays) == [DELTA]
        assert 0 <= arrays[DELTA] - size <= 256
    assert size < 0.33 * sum(array.nbytes for array in exact.values())
    for name, array in final(tmp_path / "packed").items():
        assert 0 < np.abs(array - exact[name]).max() < 0.02


def test_noised_weights_are_packed_as_well_and_a_round_asked_again_costs_nothing(
    tmp_path: Path,
) -> None:
    sites = hospitals(tmp_path / "sites")
    for site in sites:
        (site / "policy.yaml").write_text(yaml.safe_dump({"privacy": TERMS}))
    ours = study(INT8)
    with pytest.raises(Killed):
        kit.judge(ours, WatchedGrid(sites, 5), tmp_path / "run")
    grid = WatchedGrid(sites)
    kit.judge(ours, grid, tmp_path / "run")
    assert all(list(arrays) == [DELTA] for arrays in grid.came)
    for site in sites:
        entries = site_ledger(site).entries()
        rounds = [entry.round_index for entry in entries if entry.round_index is not None]
        assert rounds == [1, 2, 3]


def test_the_report_tells_what_training_sent(tmp_path: Path) -> None:
    ours = study(INT8).model_copy(update={"stages": ("survey", "prognosis", "validate")})
    results = kit.run(ours, WatchedGrid(hospitals(tmp_path / "sites")), tmp_path / "run")
    training = results.training["prognosis"]
    assert training.num_asked == (3, 3, 3)
    # The digits of a loss differ in number.
    assert abs(training.bytes_up[0] - training.bytes_up[2]) < 64
    assert training.bytes_up[0] < training.bytes_down[0]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "What training sent" in page
    asked = sum(training.num_asked) * 2**20
    for total in (sum(training.bytes_up), sum(training.bytes_down)):
        assert f"{total / asked:.2f}" in page
