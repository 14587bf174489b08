"""Every survival benchmark imports what exists and says what it does."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shared_models.heads.cox import partial_nll

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "survival"


def test_the_gradients_of_many_small_batches_are_those_of_our_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    batches, data = importlib.import_module("tcga_batches"), importlib.import_module("tcga_data")
    rng, width, sizes, steps = np.random.default_rng(3), 4, (19, 8, 5), 7
    patients = [
        # Whole months, so that times are tied within batches.
        data.Patients(
            rng.normal(0, 2, (n, width)), rng.integers(1, 6, n) * 1.0, rng.integers(0, 2, n)
        )
        for n in sizes
    ]
    drawn = batches.Batches.of(patients, [np.random.default_rng(k) for k in range(3)], 8, steps)
    weights = rng.normal(0, 3, (3, width))
    for step in range(steps):
        found = drawn.gradient(np.arange(3), weights, step)
        for k, part in enumerate(patients):
            rows = drawn.rows[k, step][drawn.rows[k, step] >= 0]
            assert len(rows) in {min(8, sizes[k]), sizes[k] % 8}
            w = torch.tensor(weights[k], requires_grad=True)
            x, months, event = (
                torch.tensor(column[rows], dtype=torch.float64)
                for column in (part.x, part.months, part.event)
            )
            loss = partial_nll(x @ w, months, event, ties="breslow", normaliser=len(rows))
            if event.any():
                loss.backward()
                np.testing.assert_allclose(found[k], w.grad, atol=1e-12)
            else:
                np.testing.assert_array_equal(found[k], 0.0)
    # Three batches are a pass over 19 patients: each stands in it once.
    once = np.sort(drawn.rows[0, :3].ravel())
    assert once[once >= 0].tolist() == list(range(19))


# Runs each program with ``--help`` as Python would, in one process: torch is imported once.
SAY_HELP = """
import runpy, sys
programs = sys.argv[1:]
sys.path[0] = programs[0].rpartition("/")[0]
for program in programs:
    sys.argv = [program, "--help"]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as ended:
        print("ended with", ended.code)
"""


@pytest.mark.slow
def test_help_says_what_it_does() -> None:
    names = ("cox_dialysis", "cox_dialysis_grid", "metabric", "tcga")
    programs = [str(FOLDER / f"{name}.py") for name in names]
    command = [sys.executable, "-c", SAY_HELP, *programs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *said, rest = done.stdout.split("ended with 0\n")
    assert (len(said), rest) == (len(names), "")
    for name, text in zip(names, said, strict=True):
        assert f"usage: {name}.py" in text and " ".join(text.split()).count(" ") > 8
