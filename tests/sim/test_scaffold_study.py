"""SCAFFOLD and turns through the real apps: killed, asked again, resumed, and nothing more sent."""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.app import Message
from safetensors.numpy import load_file

from protocol.config import Study
from server.checkpoints import hash_file
from strategies.scaffold import control_of


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()


class Killed(BaseException):
    """Stands for the signal that ends the centre's process."""


class KillingGrid(kit.RecordingGrid):  # type: ignore[name-defined, misc]
    """Ends the run when so many replies to training have come."""

    def __init__(self, sites: list[Path], after: int) -> None:
        super().__init__(sites, models=True)
        self.left = after

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies: list[Message] = super().pull_messages(message_ids)
        self.left -= sum(r.metadata.message_type == "train.prognosis" for r in replies)
        if self.left < 0:
            raise Killed
        return replies


def hospitals(folder: Path, seeds: dict[str, int]) -> list[Path]:
    folder.mkdir()
    return [
        kit.write_hospital(folder, name, kit.cohort(seed, 60), min_cell=5)
        for name, seed in seeds.items()
    ]


def set_aside_alike(sites: list[Path]) -> None:
    """Have every hospital hold out the same rows, where each would draw its own."""
    for site in sites:
        lines = (site / "outcomes.csv").read_text().splitlines()
        marked = [f"{line},{int(k % 5 == 0)}" for k, line in enumerate(lines[1:])]
        (site / "outcomes.csv").write_text("\n".join([f"{lines[0]},aside", *marked]) + "\n")
        config = yaml.safe_load((site / "site.yaml").read_text())
        config["outcomes"]["held_out"] = "aside"
        (site / "site.yaml").write_text(yaml.safe_dump(config))


def study(names: list[str], strategy: dict[str, Any], **training: Any) -> Study:
    options = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 2, "batch_size": 20}
    section = {
        "network": {"name": "tabular", "options": {"hidden": [], "field_dropout": 0.0}},
        "covariates": ["age", "gene_12"],
        "num_intervals": 4,
        "rounds": 3,
        "training": {**options, **training},
        "strategy": strategy,
    }
    return Study.model_validate(
        {
            "name": "controlled",
            "seed": 3,
            "hospitals": {"train": names},
            "stages": ["survey", "prognosis"],
            "prognosis": section,
            "rounds": {"join_s": 5},
        }
    )


def final(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(folder / "prognosis" / "final.safetensors")
    return found


THREE = {"h0": 0, "h1": 1, "h2": 2}


# Replies of three rounds of three: the end of round 1, and the midst of rounds 2 and 3.
@pytest.mark.parametrize("after", [3, 5, 7])
def test_killed_and_resumed_it_ends_with_the_same_bytes(tmp_path: Path, after: int) -> None:
    ours = study(list(THREE), {"name": "scaffold", "options": {"learning_rate": 0.9}})
    whole = hospitals(tmp_path / "whole", THREE)
    kit.judge(ours, kit.RecordingGrid(whole, models=True), tmp_path / "run")
    sites = hospitals(tmp_path / "sites", THREE)
    with pytest.raises(Killed):
        kit.judge(ours, KillingGrid(sites, after), tmp_path / "part")
    kit.judge(ours, kit.RecordingGrid(sites, models=True), tmp_path / "part")
    for name in ("round-00003", "final"):
        file = f"prognosis/{name}.safetensors"
        assert hash_file(tmp_path / "part" / file) == hash_file(tmp_path / "run" / file)
    for one, other in zip(whole, sites, strict=True):
        place = ".concors/studies/controlled/control/prognosis/round-00003.safetensors"
        assert hash_file(one / place) == hash_file(other / place)


def test_the_mean_of_the_hospitals_files_is_the_centres_and_only_a_rate_is_sent(
    tmp_path: Path,
) -> None:
    sites, grid = hospitals(tmp_path / "sites", THREE), None
    ours = study(list(THREE), {"name": "scaffold"})
    grid = kit.RecordingGrid(sites, models=True)
    kit.judge(ours, grid, tmp_path / "run")
    state = load_file(tmp_path / "run" / "prognosis" / "round-00003.safetensors")
    control = control_of({name.removeprefix("state/"): array for name, array in state.items()})
    place = ".concors/studies/controlled/control/prognosis/round-00003.safetensors"
    own = [load_file(site / place) for site in sites]
    for name, c in control.items():
        mean = np.mean([variate[name] for variate in own], axis=0)
        np.testing.assert_allclose(c, mean, atol=1e-6)
        assert any(np.abs(variate[name] - mean).max() > 1e-3 for variate in own)
    texts = [json.loads(text) for _, topic, text in grid.sent if topic == "train.prognosis"]
    keys = {"kind", "metrics", "num_events", "num_patients", "rate_sum"}
    assert len(texts) == 9 and all(set(text) == keys for text in texts)


def test_one_hospital_is_fedavg_to_the_bit(tmp_path: Path) -> None:
    models = []
    for name in ("scaffold", "fedavg"):
        sites = hospitals(tmp_path / name, {"h0": 0})
        folder = tmp_path / f"{name}-run"
        grid = kit.RecordingGrid(sites, models=True)
        kit.judge(study(["h0"], {"name": name}, weight_decay=0.01), grid, folder)
        models.append(hash_file(folder / "prognosis" / "final.safetensors"))
    assert models[0] == models[1]


def test_equal_hospitals_are_fedavg_up_to_rounding(tmp_path: Path) -> None:
    # Whole batches: each hospital draws an order of its own, and only sums are rounded otherwise.
    models = []
    for name in ("scaffold", "fedavg"):
        sites = hospitals(tmp_path / name, {"h0": 4, "h1": 4})
        set_aside_alike(sites)
        folder = tmp_path / f"{name}-run"
        grid = kit.RecordingGrid(sites, models=True)
        kit.judge(study(["h0", "h1"], {"name": name}, batch_size=60, epochs=5), grid, folder)
        models.append(final(folder))
    for key, array in models[0].items():
        np.testing.assert_allclose(array, models[1][key], atol=1e-6)


def test_scaffold_goes_another_way_than_fedavg_where_hospitals_differ(tmp_path: Path) -> None:
    models = []
    for name in ("scaffold", "fedavg"):
        sites, folder = hospitals(tmp_path / name, THREE), tmp_path / f"{name}-run"
        ours = study(list(THREE), {"name": name}, learning_rate=2.0, epochs=8)
        kit.judge(ours, kit.RecordingGrid(sites, models=True), folder)
        models.append(final(folder))
    assert any(np.abs(models[0][key] - models[1][key]).max() > 1e-4 for key in models[0])


def test_a_study_in_turn_runs_to_its_report(tmp_path: Path) -> None:
    sites = hospitals(tmp_path / "sites", THREE)
    ours = study(list(THREE), {"ask": "in turn"}).model_copy(
        update={"stages": ("survey", "prognosis", "validate")}
    )
    results = kit.run(ours, kit.RecordingGrid(sites, models=True), tmp_path / "run")
    losses = results.training["prognosis"].loss
    asked = [[loss[k] is not None for loss in losses.values()] for k in range(3)]
    assert np.array_equal(np.sum(asked, axis=0), [1, 1, 1])
    assert np.array_equal(np.sum(asked, axis=1), [1, 1, 1])
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000
