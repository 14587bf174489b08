"""The audit itself audited: wrong code raises the alarm, right code does not."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from privacy.accountant import Spend, epsilon

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
SEEDS = (0, 1)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("privacy_digits")


def test_four_bugs_are_caught_and_right_code_is_not(digits: ModuleType) -> None:
    claimed = epsilon([Spend(**digits.CLAIM)], digits.CLAIM_DELTA)
    assert 0.9 < claimed < 1.3
    assert len(digits.BUGS) == 5
    for bug in digits.BUGS:
        for seed in SEEDS:
            found = digits.audit_once(bug, seed)
            assert (found.num_canaries, found.num_guesses) == (100, 50)
            assert found.refutes(claimed) == (bug != "correct"), (bug, seed, found)
