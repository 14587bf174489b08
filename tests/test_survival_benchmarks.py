"""Every survival benchmark imports what exists and says what it does."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "survival"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cox_dialysis", "cox_dialysis_grid", "metabric", "tcga"])
def test_help_says_what_it_does(name: str) -> None:
    script = FOLDER / f"{name}.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout and " ".join(done.stdout.split()).count(" ") > 8
