"""Three hundred damaged files of every kind: a reason or pixels each, and nothing else."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import intake_fuzz


def test_damaged_files_give_a_reason(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_fuzz, "DATA", shared_data / "dicom_edge")
    outcomes, slowest = intake_fuzz.fuzz(300, seed=7)
    assert outcomes.total() == 300 and len(outcomes) >= 8
    assert outcomes["pixels"] > 20 and outcomes["damaged header"] > 10
    # No assertion on the machine's speed: the decoder's own limit is 5 s, a hang would be endless.
    assert slowest < 60
