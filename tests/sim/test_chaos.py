"""Six kills, one of each process that can be killed, in one run: the same bytes at its end."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_ends_with_the_same_bytes_whatever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import chaos

    kills = [
        chaos.Kill(victim, hospital=k % len(chaos.NAMES), after_round=1 + k, moment=(k + 0.5) / 6)
        for k, victim in enumerate(chaos.VICTIMS)
    ]
    outcome = chaos.one_run(tmp_path, kills, num_rounds=8, round_s=2.0)
    assert outcome.state == "finished"
    assert outcome.identical
    assert outcome.excluded == []
    assert sum(kill["hit"] for kill in outcome.kills) >= 4


def test_the_plan_spreads_its_kills_over_every_part_of_a_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import chaos

    kills = [kill for run in chaos.plan(40, seed=0) for kill in run]
    assert len(kills) == 40
    assert {kill.victim for kill in kills} == set(chaos.VICTIMS)
    moments = sorted(kill.moment for kill in kills)
    assert all(k / 40 <= moment < (k + 1) / 40 for k, moment in enumerate(moments))
    assert kills == [kill for run in chaos.plan(40, seed=0) for kill in run]
