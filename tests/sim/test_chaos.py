"""SIGKILL of everything that a run consists of: it ends by itself, with the same bytes.

Six kills, one of each kind, of two hospitals and their server, in pairs; the benchmark does forty
of four hospitals, one by one.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from protocol import audit

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = ("alder", "birch")


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import chaos

    return chaos


def test_the_plan_spreads_its_kills_over_every_part_of_a_round(chaos: Any) -> None:
    kills = [kill for run in chaos.plan(40, seed=0) for kill in run]
    assert len(kills) == 40
    assert {kill.victim for kill in kills} == set(chaos.VICTIMS)
    moments = sorted(kill.moment for kill in kills)
    assert all(k / 40 <= moment < (k + 1) / 40 for k, moment in enumerate(moments))
    assert kills == [kill for run in chaos.plan(40, seed=0) for kill in run]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_six_kills_change_nothing(chaos: Any, tmp_path: Path) -> None:
    # Two at a time, one of either side: what recovers must find the other recovering.
    of_server, of_hospital = (
        [victim for victim, (side, _) in chaos.VICTIMS.items() if side == each]
        for each in ("server", "hospital")
    )
    kills = [
        chaos.Kill(victim, number % len(NAMES), 1 + number, moment)
        for number, pair in enumerate(zip(of_server, of_hospital, strict=True))
        for victim, moment in zip(pair, (0.2 + 0.2 * number, 0.1), strict=True)
    ]
    done = chaos.one_run(tmp_path, kills, num_rounds=5, round_s=1.0, names=NAMES)
    assert (done.state, done.identical, done.excluded) == ("finished", True, [])
    assert [kill["hit"] for kill in done.kills] == [True] * 6
    centre = tmp_path / "run" / "centre"
    approvals = json.loads((centre / "runs" / "chaos-1" / "approvals.json").read_text())
    assert approvals == dict.fromkeys(NAMES, "approved")
    lines = list(audit.read(centre / "audit.jsonl"))
    killed = {line["detail"]["what"] for line in lines if line["event"] == "killed"}
    assert {"server app", "superlink"} <= killed
    assert "restarted" in [line["event"] for line in lines]
