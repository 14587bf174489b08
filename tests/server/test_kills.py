"""kill -9 of what the server consists of: the run ends by itself, with the same bytes."""

import importlib.util
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from protocol import audit
from protocol.config import Study
from server.run_folders import new_run
from server.run_state import read
from server.status import progress_lines
from sim.engines.local import run_local

pytestmark = pytest.mark.slow
NAMES = ("alder", "birch")


def _load(folder: str, name: str) -> ModuleType:
    place = Path(__file__).parents[1] / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load("sim", "tabular_hospitals")
deployed = _load("server", "deployed_example")

STUDY = Study.model_validate(
    {
        "name": "kills",
        "seed": 3,
        "hospitals": {"train": list(NAMES)},
        "stages": ["survey", "prognosis"],
        "rounds": {"join_s": 200},
        "prognosis": {
            "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
            "covariates": ["age", "gene_12"],
            "num_intervals": 4,
            "rounds": 6,
            "training": {"learning_rate": 0.05, "epochs": 1},
        },
    }
)


def hospitals(folder: Path) -> list[Path]:
    folder.mkdir()
    return [
        kit.write_hospital(folder, name, kit.cohort(seed, 80), min_cell=5)
        for seed, name in enumerate(NAMES)
    ]


def undisturbed(folder: Path) -> bytes:
    """Run the study in one process, at hospitals of its own, and return the final weights."""
    sites = hospitals(folder)
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({"study": STUDY.model_dump(mode="json", by_alias=True)}))
    run_local(file, folder / "run", sites)
    return (folder / "run" / "prognosis" / "final.safetensors").read_bytes()


def rounds_done(folder: Path) -> int:
    lines = [line.split() for line in progress_lines(folder) if line.startswith("prognosis:")]
    return max((int(words[1]) for words in lines), default=0)


def test_killed_server_app_and_superlink_change_nothing(tmp_path: Path) -> None:
    consortium = deployed.new_consortium(tmp_path / "c")
    sites = hospitals(tmp_path / "sites")
    for site in sites:
        deployed.join_consortium(consortium, site.name, site / "node.key")
    with deployed.served(consortium) as server:
        server.wait_until_up()
        nodes = [deployed.Node(consortium, s, tmp_path / f"node-{s.name}") for s in sites]
        try:
            folder = new_run(consortium, STUDY, now=datetime.now(UTC), lifetime=timedelta(days=1))
            server.wait(lambda: rounds_done(folder) >= 1)
            os.kill(deployed.find_process(str(tmp_path), "flwr-serverapp"), signal.SIGKILL)
            server.wait(lambda: read(folder).attempts == 2 and rounds_done(folder) >= 3)
            os.kill(deployed.find_process(str(tmp_path), "server.superlink"), signal.SIGKILL)
            state = server.wait_for_end(folder)
        finally:
            for node in nodes:
                node.close()
    assert (state.state, state.sentence) == ("finished", "")
    weights = (folder / "prognosis" / "final.safetensors").read_bytes()
    assert weights == undisturbed(tmp_path / "alone")
    assert json.loads((folder / "approvals.json").read_text()) == dict.fromkeys(NAMES, "approved")
    lines = list(audit.read(consortium.root / "audit.jsonl"))
    killed = [line["detail"]["what"] for line in lines if line["event"] == "killed"]
    assert killed[:2] == ["server app", "superlink"]
    assert "restarted" in [line["event"] for line in lines]
