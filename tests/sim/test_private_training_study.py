"""A consortium of phantom hospitals with privacy policies, from DICOM to the report."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.policy import site_ledger
from server.results import load_results
from sim.engines.local import run_local
from sim.simulation import load_simulation

REPOSITORY = Path(__file__).resolve().parents[2]
# Twenty patients are few for noise that protects them: these terms try the way, not the protection.
TERMS: dict[str, Any] = {
    "noise_multiplier": 2.0,
    "clip_norm": 1.0,
    "sampling_rate": 0.5,
    "steps_per_round": 2,
    "max_rounds": 20,
    "delta": 1e-3,
    "study_epsilon": 1000.0,
    "lifetime_epsilon": 1000.0,
    "statistics_noise": 0.5,
    "slices_per_patient": 2,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_study_with_policies_ends_with_a_report(
    quick_hospitals: Path, tmp_path: Path
) -> None:
    study, _ = load_simulation(REPOSITORY / "configs" / "quick.yaml")
    shutil.copytree(quick_hospitals, tmp_path / "sites")
    sites = [tmp_path / "sites" / name for name in study.hospitals.all]
    for site in sites:
        (site / "policy.yaml").write_text(yaml.safe_dump({"privacy": TERMS}))
    stages = [stage for stage in study.stages if stage != "regression"]
    text = study.model_dump(mode="json", by_alias=True) | {"stages": stages}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"study": text}))
    run_local(path, tmp_path / "run", sites)
    assert (tmp_path / "run" / "report.html").is_file()
    results = load_results(tmp_path / "run" / "results.json")
    for stage in ("segment", "prognosis"):
        assert (tmp_path / "run" / stage / "final.safetensors").is_file()
        # No loss was told.
        losses = results.training[stage].loss
        assert all(value is None for history in losses.values() for value in history)
    for site in sites:
        entries = site_ledger(site).entries()
        assert all(entry.committed for entry in entries)
        rounds = [(e.purpose, e.round_index) for e in entries if e.round_index is not None]
        expected = [("segment", k + 1) for k in range(study.segment.rounds)]
        expected += [("prognosis", k + 1) for k in range(study.prognosis.rounds)]
        assert rounds == (expected if site.name in study.hospitals.train else [])
