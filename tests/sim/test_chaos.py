"""The plan of the kills: every process, and every part of a round.

The kills themselves take minutes and are in the benchmark; those of the server and of a node are in
`tests/server/test_kills.py` and `tests/client/node/test_node.py`.
"""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


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
