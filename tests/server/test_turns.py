"""Cyclic weight transfer: one hospital after the other, each once a cycle."""

from pathlib import Path
from typing import Any

import pytest

from protocol.arrays import fingerprint
from protocol.config import Study
from protocol.errors import ConfigError, QuorumError
from protocol.payload import Refusal, TrainRequest
from protocol.yaml_files import parse
from server.checkpoints import Checkpoints
from server.turns import counted_rounds, last_weights, whose_turn


def test_every_hospital_has_its_turn_once_a_cycle_in_an_order_drawn_anew() -> None:
    turns = [whose_turn("DBCA", 5, "segment", number) for number in range(1, 41)]
    cycles = [tuple(turns[k : k + 4]) for k in range(0, 40, 4)]
    assert all(sorted(cycle) == list("ABCD") for cycle in cycles)
    assert len(set(cycles)) > 4
    assert turns == [whose_turn("ABCD", 5, "segment", number) for number in range(1, 41)]
    assert turns != [whose_turn("ABCD", 6, "segment", number) for number in range(1, 41)]


def test_the_model_is_handed_on_to_the_bit(
    consortium: Any, well_behaved: Any, initial_arrays: Any
) -> None:
    three = consortium()
    arrays, history = three.run(in_turn=True, num_rounds=7)
    by_hand = initial_arrays()
    for number, entry in enumerate(history, start=1):
        site = whose_turn("ABC", 5, "segment", number)
        assert list(entry["sites"]) == [site] and entry["excluded"] == {}
        request = TrainRequest(three.study(), "segment", number, {}, by_hand)
        by_hand = well_behaved(site, request).arrays
    assert fingerprint(arrays) == fingerprint(by_hand)


def test_killed_and_resumed_it_ends_with_the_same_bytes(consortium: Any, tmp_path: Path) -> None:
    whole, _ = consortium().run(in_turn=True, num_rounds=5)
    consortium().run(in_turn=True, num_rounds=2, checkpoints=Checkpoints(tmp_path))
    rest, _ = consortium().run(in_turn=True, num_rounds=5, checkpoints=Checkpoints(tmp_path))
    assert fingerprint(rest) == fingerprint(whole)


def test_the_one_that_does_not_answer_stops_the_run_which_can_be_resumed(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    second, broken = whose_turn("ABC", 5, "segment", 2), True

    def behave(site: str, request: TrainRequest) -> Any:
        if broken and site == second:
            return Refusal("E300", "Not today.")
        return well_behaved(site, request).to_records()

    three = consortium(behave=behave, settings={"quorum": 0.5})
    with pytest.raises(QuorumError, match=r"^Round 2 of segment: 0 of 1 .* mend this and resume"):
        three.run(in_turn=True, checkpoints=Checkpoints(tmp_path))
    broken = False
    arrays, _ = three.run(in_turn=True, checkpoints=Checkpoints(tmp_path))
    assert fingerprint(arrays) == fingerprint(consortium().run(in_turn=True)[0])


def test_who_was_counted_last_is_read_from_the_history() -> None:
    history = [
        {"round": 1, "sites": {"A": {"weight": 3.0}, "B": {"weight": 2.0}}},
        {"round": 2, "sites": {"B": {"weight": 4.0}, "C": {"weight": 0.0}}},
    ]
    assert counted_rounds(history) == {"A": 1, "B": 2}
    assert last_weights(history) == {"A": 3.0, "B": 4.0}
    assert counted_rounds([]) == last_weights([]) == {}


@pytest.mark.parametrize("stage", ["segment", "prognosis"])
@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"strategy": {"name": "scaffold"}}, "set training.optimizer to sgd"),
        ({"strategy": {"ask": "in turn", "weight_by": "events"}}, "set weight_by to patients"),
    ],
)
def test_what_does_not_go_together_is_refused(
    stage: str, section: dict[str, Any], sentence: str
) -> None:
    study = {"name": "s", "seed": 1, "hospitals": {"train": ["A"]}, stage: section}
    with pytest.raises(ConfigError, match=sentence):
        parse(Study, study, "study.yaml")
    study[stage] = {"strategy": {"name": "scaffold"}, "training": {"optimizer": "sgd"}}
    parse(Study, study, "study.yaml")
