"""A hospital that fails round after round: counted right, said loudly, resumed without loss."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from protocol.arrays import fingerprint
from protocol.errors import QuorumError
from protocol.payload import Refusal, TrainRequest
from server.checkpoints import Checkpoints
from server.missed import MissedRounds, missed_in_a_row, missed_rounds
from server.report.write import render_report
from server.results import Results

DOWN = {"code": "E200", "sentence": "Disk is full."}


def history(missing: dict[str, Sequence[int]], num_rounds: int) -> list[dict[str, Any]]:
    return [
        {
            "stage": "segment",
            "round": number,
            "sites": {s: {} for s, when in missing.items() if number not in when},
            "excluded": {s: DOWN for s, when in missing.items() if number in when},
        }
        for number in range(1, num_rounds + 1)
    ]


def fails(rounds: Sequence[int], well: Callable[..., Any]) -> Callable[..., Any]:
    """Return hospitals of which B fails in the given rounds."""

    def behave(site: str, request: TrainRequest) -> Any:
        if site == "B" and request.round_index in rounds:
            return Refusal("E200", f"No disk in round {request.round_index}.")
        return well(site, request).to_records()

    return behave


# The count ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "num_rounds", "expected"),
    [
        ([1, 2, 3], 3, [(1, 3, 3, True)]),
        ([1, 2, 3], 4, [(1, 3, 3, False)]),
        ([1, 2, 4, 5], 5, []),
        ([2, 3, 4, 6, 7, 8, 9], 9, [(2, 4, 3, False), (6, 9, 4, True)]),
        ([], 9, []),
    ],
)
def test_spells_of_misses_are_counted(
    when: list[int], num_rounds: int, expected: list[tuple[int, int, int, bool]]
) -> None:
    found = missed_rounds([history({"A": [], "B": when}, num_rounds)], 3)
    seen = [(m.first_round, m.last_round, m.num_rounds, m.to_the_end) for m in found]
    assert seen == expected
    assert {m.hospital for m in found} <= {"B"}


def test_rounds_in_which_a_hospital_was_not_asked_do_not_end_its_spell() -> None:
    rounds = history({"B": [1, 3, 5]}, 5)
    for entry in (rounds[1], rounds[3]):
        entry["sites"] = {"A": {}}
    assert missed_in_a_row(rounds)["B"].num_rounds == 3


def test_a_hospital_that_counted_although_one_message_failed_was_there() -> None:
    rounds = history({"B": [1, 2, 3]}, 3)
    rounds[1]["sites"] = {"B": {}}
    assert missed_in_a_row(rounds)["B"].num_rounds == 1


# Stop --------------------------------------------------------------------------------------------


def test_the_third_miss_in_a_row_ends_the_study_with_name_code_and_sentence(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    three = consortium(behave=fails(range(2, 99), well_behaved), settings={"quorum": 0.5})
    with pytest.raises(QuorumError) as raised:
        three.run(num_rounds=9, checkpoints=Checkpoints(tmp_path))
    assert raised.value.sentence == (
        "Round 4 of segment: B missed 3 rounds in a row (E200 No disk in round 4.), and the study "
        "ends at 3; mend this and resume, or set rounds.on_missing to warn to go on without."
    )
    # What the others did stays.
    assert Checkpoints(tmp_path).latest().round_index == 4


def test_two_misses_in_a_row_do_not_end_it(consortium: Any, well_behaved: Any) -> None:
    behave = fails([1, 2, 4, 5, 7], well_behaved)
    _, entries = consortium(behave=behave, settings={"quorum": 0.5}).run(num_rounds=8)
    assert len(entries) == 8


def test_the_limit_is_the_studys(consortium: Any, well_behaved: Any) -> None:
    settings = {"quorum": 0.5, "max_missed": 1}
    with pytest.raises(QuorumError, match=r"^Round 2 of segment: B missed 1 round in a row"):
        consortium(behave=fails([2], well_behaved), settings=settings).run()


def test_mended_and_resumed_it_ends_as_if_it_had_not_been_stopped(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    behave = fails([1, 2, 3], well_behaved)
    three = consortium(behave=behave, settings={"quorum": 0.5})
    with pytest.raises(QuorumError, match="B missed 3 rounds"):
        three.run(num_rounds=5, checkpoints=Checkpoints(tmp_path))
    arrays, entries = three.run(num_rounds=5, checkpoints=Checkpoints(tmp_path))
    settings = {"quorum": 0.5, "on_missing": "warn"}
    whole, _ = consortium(behave=behave, settings=settings).run(num_rounds=5)
    assert fingerprint(arrays) == fingerprint(whole)
    [spell] = missed_rounds([entries], 3)
    assert (spell.first_round, spell.last_round, spell.to_the_end) == (1, 3, False)


def test_resumed_but_not_mended_it_is_stopped_again(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    three = consortium(behave=fails(range(99), well_behaved), settings={"quorum": 0.5})
    for number in (3, 4):
        with pytest.raises(QuorumError, match=rf"^Round {number} of .*B missed {number} rounds"):
            three.run(num_rounds=9, checkpoints=Checkpoints(tmp_path))


# Warn --------------------------------------------------------------------------------------------


def test_a_study_that_goes_on_knows_who_was_missing(consortium: Any, well_behaved: Any) -> None:
    settings = {"quorum": 0.5, "on_missing": "warn"}
    _, entries = consortium(behave=fails(range(3, 99), well_behaved), settings=settings).run(
        num_rounds=6
    )
    [spell] = missed_rounds([entries], 3)
    assert spell.hospital == "B" and spell.to_the_end
    assert (spell.code, spell.sentence) == ("E200", "No disk in round 6.")


def report_with(values: dict[str, Any], *, to_the_end: bool) -> tuple[Results, str]:
    spell = MissedRounds(
        hospital="river",
        stage="segment",
        first_round=4,
        last_round=9,
        num_rounds=6,
        code="E501",
        sentence="No reply within 60 s; <look>.",
        to_the_end=to_the_end,
    )
    results = Results.of(values | {"missed": [spell.model_dump()]})
    return results, render_report(results)


def test_the_report_says_on_top_who_was_missing_to_the_end(study_results: Any) -> None:
    results, page = report_with(study_results, to_the_end=True)
    assert results.finished_without == ("river",)
    head = page[: page.index("<section>")]
    assert "<strong>Finished with a missing hospital.</strong>" in head
    assert "river missed 6 rounds in a row (4 to 9) of the stage segment" in head
    assert "&lt;look&gt;" in head


def test_one_that_came_back_is_a_note_at_the_training(study_results: Any) -> None:
    results, page = report_with(study_results, to_the_end=False)
    assert results.finished_without == ()
    assert "Finished with a missing hospital" not in page
    assert "and came back" in page[page.index("<h2>Training</h2>") :]
