"""The state of a run is what its folder says, at every moment of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import ConfigError, QuorumError
from protocol.payload import Refusal, TrainRequest
from server.checkpoints import Checkpoints
from server.progress import Progress, RoundProgress
from server.results import load_results
from server.watching.files import TAIL_BYTES, RunFiles, tail
from server.watching.hospitals import Step, hospital_states, is_overdue, newest_step
from server.watching.log import log_lines
from server.watching.reading import state_of
from server.watching.state import RoundState, RunState
from server.watching.training import curves, rounds, spent

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def states(state: RunState) -> dict[str, str]:
    return {hospital.name: hospital.phase for hospital in state.hospitals}


# A finished run ----------------------------------------------------------------------------------


def test_a_finished_run_tells_all_it_found(recorded_run: Path) -> None:
    state = state_of(recorded_run)
    results = load_results(recorded_run / "results.json")
    assert (state.name, state.status, state.exit_code) == ("recorded", "finished", 0)
    assert states(state) == dict.fromkeys(("alder", "birch", "cedar", "elm"), "took part")
    assert [h.role for h in state.hospitals] == ["train", "train", "train", "external"]
    assert [each.state for each in state.stages] == ["done"] * 3
    assert [(r.stage, r.number, r.counted) for r in state.rounds] == [
        ("prognosis", number, 3) for number in (1, 2, 3)
    ]
    told = {curve.hospital: curve.values for curve in state.curves}
    assert told == results.training["prognosis"].loss
    c_index = {f.hospital: f.value for f in state.figures if f.name == "C-index"}
    assert c_index == {
        site: part.pairs.c_index
        for site, part in results.arms["federated"].sites.items()
        if part.pairs is not None
    }
    assert state.has_report and state.is_over
    assert state.log[-1].text.startswith("run.sealed: record")
    json.dumps(state.to_dict(), allow_nan=False)


def test_reading_changes_nothing(recorded_run: Path) -> None:
    def seen() -> dict[Path, tuple[int, int]]:
        return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in recorded_run.rglob("*")}

    before = seen()
    assert state_of(recorded_run, now=NOW) == state_of(recorded_run, now=NOW)
    assert seen() == before


def cut(recorded_run: Path, folder: Path, lines: int) -> Path:
    """Return the folder as it was after so many lines of progress (checkpoints stay)."""
    folder.mkdir(exist_ok=True)
    text = (recorded_run / "progress.jsonl").read_text().splitlines(keepends=True)
    (folder / "progress.jsonl").write_text("".join(text[:lines]))
    (folder / "study.json").write_bytes((recorded_run / "study.json").read_bytes())
    return folder


def test_it_can_be_read_after_every_line_and_in_the_middle_of_one(
    recorded_run: Path, tmp_path: Path
) -> None:
    num_lines = len((recorded_run / "progress.jsonl").read_text().splitlines())
    sentences = []
    for lines in range(num_lines + 1):
        folder = cut(recorded_run, tmp_path / "run", lines)
        whole = state_of(folder, now=NOW)
        with (folder / "progress.jsonl").open("a") as file:
            file.write('{"what": "progn')
        assert state_of(folder, now=NOW) == whole
        assert (
            whole.status == ("waiting", "running", "finished")[(lines > 0) + (lines == num_lines)]
        )
        sentences.append(whole.sentence)
    assert sentences[0] == "The run has not begun yet."
    assert sentences[1] == (
        "Waiting for hospitals to join: 0 of 4 answered, waiting for alder, birch, cedar and "
        "others."
    )
    assert (
        "Round 2 of 3 of the stage prognosis: 1 of 3 answered, waiting for birch, cedar."
        in sentences
    )


def test_while_hospitals_join_those_that_are_not_there_stand_out(
    recorded_run: Path, tmp_path: Path
) -> None:
    state = state_of(cut(recorded_run, tmp_path / "run", 3))
    assert states(state) == {
        "alder": "joined",
        "birch": "joined",
        "cedar": "not joined",
        "elm": "not joined",
    }
    assert [stage.state for stage in state.stages] == ["ahead"] * 3


# In the middle of a round ------------------------------------------------------------------------


def watched(
    consortium: Any, folder: Path, well_behaved: Callable[..., Any], **settings: Any
) -> list[RunState]:
    """Run three hospitals of which B refuses, and read the state whenever C is asked."""
    seen: list[RunState] = []

    def behave(site: str, request: TrainRequest) -> Any:
        if site == "C":
            seen.append(state_of(folder))
        if site == "B":
            return Refusal("E200", "No disk.")
        return well_behaved(site, request).to_records()

    three = consortium(behave=behave, settings={"quorum": 0.5} | settings)
    progress = Progress(folder)
    (folder / "study.json").write_text(three.study().model_dump_json(by_alias=True))
    with progress.until_the_end():
        three.run(
            num_rounds=4,
            checkpoints=Checkpoints(folder / "segment"),
            progress=RoundProgress(progress, "segment", 4),
        )
    return seen


def test_within_a_round_it_says_who_answered_who_refused_and_who_is_awaited(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    with pytest.raises(QuorumError):
        watched(consortium, tmp_path, well_behaved)
    seen = state_of(tmp_path)
    assert (seen.status, seen.code, seen.exit_code) == ("failed", "E500", 1)
    assert "B missed 3 rounds in a row" in seen.sentence


def test_misses_in_a_row_are_counted_while_the_study_goes_on(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    seen = watched(consortium, tmp_path, well_behaved, on_missing="warn")
    assert [states(each) for each in seen] == [
        {"A": "answered", "B": "left out", "C": "working"}
    ] * 4
    assert [each.hospitals[1].missed_in_a_row for each in seen] == [0, 1, 2, 3]
    assert (seen[0].hospitals[1].code, seen[0].hospitals[1].sentence) == ("E200", "No disk.")
    assert seen[2].sentence == (
        "Round 3 of 4 of the stage segment: 2 of 3 answered, waiting for C."
    )
    assert [h.last_round for h in seen[2].hospitals] == [2, None, 2]
    assert [r.left_out for r in seen[2].rounds] == [("B",), ("B",)]


def test_a_finished_study_without_one_of_its_hospitals_says_so(
    study_results: Any, tmp_path: Path
) -> None:
    spell = {
        "hospital": "river",
        "stage": "segment",
        "first_round": 4,
        "last_round": 9,
        "num_rounds": 6,
        "code": "E501",
        "sentence": "No reply.",
        "to_the_end": True,
    }
    from server.results import Results, save_results

    save_results(Results.of(study_results | {"missed": [spell]}), tmp_path / "results.json")
    progress = Progress(tmp_path)
    progress.asked("join", 0, 2, ["north", "river"])
    progress.heard("join", 1, 2, "north", None)
    progress.heard("join", 2, 2, "river", None)
    with progress.until_the_end():
        pass
    state = state_of(tmp_path)
    assert state.status == "finished with missing hospitals"
    assert state.exit_code == 2
    assert states(state) == {"north": "took part", "river": "missing"}
    assert "without all of river" in state.sentence


@pytest.mark.parametrize(
    ("wanted", "ended", "status", "sentence"),
    [
        ({"state": "stopped"}, True, "stopped", "stopped by its coordinator"),
        ({"state": "failed", "sentence": "Six attempts."}, True, "failed", "Six attempts."),
        # Killed and taken up again: the failure of the attempt before is no news.
        ({"state": "running"}, True, "running", "Waiting for hospitals to join"),
        ({}, True, "failed", "The program itself failed"),
        ({}, False, "running", "Waiting for hospitals to join"),
    ],
)
def test_what_the_coordinator_wants_goes_before_how_an_attempt_ended(
    tmp_path: Path, wanted: dict[str, str], ended: bool, status: str, sentence: str
) -> None:
    progress = Progress(tmp_path)
    progress.asked("join", 0, 1, ["A"])
    if ended:
        with pytest.raises(ZeroDivisionError), progress.until_the_end():
            raise ZeroDivisionError("/secret/path")
    if wanted:
        (tmp_path / "run.json").write_text(json.dumps(wanted))
    state = state_of(tmp_path)
    assert state.status == status and sentence in state.sentence
    assert "secret" not in (tmp_path / "progress.jsonl").read_text()


def test_a_hospital_that_left_the_consortium_is_named(tmp_path: Path) -> None:
    run, members = tmp_path / "runs" / "s-1", tmp_path / "hospitals"
    members.mkdir()
    (members / "A.json").write_text('{"name": "A", "revoked": ""}')
    (members / "B.json").write_text('{"name": "B", "revoked": "2026-03-02T12:00:00"}')
    Progress(run).asked("join", 0, 2, ["A", "B"])
    assert states(state_of(run)) == {"A": "not joined", "B": "no longer a member"}


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(ConfigError, match=r"^The folder nothing holds no run; name the folder"):
        state_of(folder)


# Parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_s", "overdue"), [(59, False), (61, True), (200, True), (0, False)])
def test_a_round_is_late_after_twice_the_median_and_a_minute(after_s: int, overdue: bool) -> None:
    done = [RoundState("segment", n, s, 3, (), None, None, 1.0) for n, s in ((1, 9), (2, 20))]
    step = Step("segment", 3, 2, 9, NOW - timedelta(seconds=after_s), ("A", "B"))
    assert is_overdue(step, done, NOW) is overdue
    assert not is_overdue(replace(step, round=None), done, NOW)
    assert not is_overdue(step, [], NOW)
    phases = [
        each.phase
        for each in hospital_states(None, step, {}, {}, overdue=overdue, over=False, finished=False)
    ]
    # Only the first is known to be waited for: replies are taken in this order.
    assert phases == (["late", "working"] if overdue else ["working", "working"])


def test_no_reply_in_time_is_late(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    progress.asked("query.survey", 0, 2, ["A", "B"])
    progress.heard("query.survey", 1, 2, "A", Refusal("E501", "No reply."))
    assert states(state_of(tmp_path)) == {"A": "late", "B": "working"}


def test_a_run_that_is_started_again_is_joined_again(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    for site in ("A", "B"):
        progress.asked("join", 0, 1, [site])
        progress.heard("join", 1, 1, site, None)
    assert newest_step(tail(tmp_path / "progress.jsonl")).joined == {"B"}


def entry(number: int, **more: Any) -> dict[str, Any]:
    part = {"num_patients": 5, "num_events": 1, "weight": 5.0}
    return {
        "stage": "segment",
        "round": number,
        "seconds": 2.0,
        "sites": {
            "A": part | {"metrics": {"loss": 1.0 / number, "epsilon": 0.5 * number}},
            "B": part | {"metrics": {"dice": 0.5} if number == 2 else {}},
        },
        "excluded": {},
        "update_norm": 1.0,
        "fingerprint": "f",
    } | more


def test_curves_are_by_metric_and_hospital_with_gaps() -> None:
    found = curves("segment", [entry(1), entry(2)])
    assert [(c.metric, c.hospital, c.values) for c in found] == [
        ("dice", "B", (None, 0.5)),
        ("loss", "A", (1.0, 0.5)),
    ]
    assert spent([entry(1), entry(2)]) == {"A": (1.0, None)}


def test_where_only_sums_were_seen_there_is_one_curve_and_one_epsilon() -> None:
    together = {"weight": 9.0, "metrics": {"loss": 0.7}, "epsilon": 2.5, "delta": 1e-5}
    [curve] = curves("segment", [entry(1, together=together)])
    assert (curve.hospital, curve.values) == ("all hospitals together", (0.7,))
    assert spent([entry(1, together=together)])["all hospitals together"] == (2.5, 1e-5)


@pytest.mark.parametrize(
    ("down", "mb"), [(3 * 2**20, 3.0), ({"A": 2**20, "B": 2**19}, 1.5), (None, None)]
)
def test_traffic_is_in_mb_of_all_hospitals_together(down: Any, mb: float | None) -> None:
    [found] = rounds([entry(1) | ({} if down is None else {"bytes_down": down})])
    assert (found.mb_down, found.mb_up) == (mb, None)


def test_the_log_has_one_line_for_hospitals_that_did_the_same() -> None:
    def event(site: str, outcome: str = "answered") -> dict[str, Any]:
        detail = {"site": site, "outcome": outcome}
        time = "2026-03-02T12:00:00.123+00:00"
        return {"event": "query.survey", "detail": detail, "time": time}

    lines = log_lines([event("A"), event("B"), event("C", "E200"), event("A"), event("A")])
    assert [line.text for line in lines] == [
        "A, B: survey, answered",
        "C: survey, E200",
        "A: survey, answered (2 times)",
    ]
    assert lines[0].time == "2026-03-02T12:00:00Z"
    both = [event("A"), event("A", "E200")] * 50
    assert [line.text for line in log_lines(both, newest=2)] == [
        "A: survey, answered",
        "A: survey, E200",
    ]


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    line = json.dumps({"what": "segment", "done": 1, "total": 2, "note": "x" * 100})
    path.write_text((line + "\n") * (2 * TAIL_BYTES // len(line)) + "not JSON\n[1]\n")
    found = tail(path)
    assert 0 < len(found) <= TAIL_BYTES // len(line)
    assert all(each["what"] == "segment" for each in found)
    assert tail(tmp_path / "absent.jsonl") == []


def test_a_damaged_folder_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    for name in ("study.json", "results.json", "run.json", "audit.jsonl", "progress.jsonl"):
        (tmp_path / name).write_bytes(b"\xff\xfe{\x00\n[]\nnull\n")
    (tmp_path / "segment").mkdir()
    (tmp_path / "segment" / "round-00002.json").write_text("{")
    (tmp_path / "segment" / "round-00001.json").write_text(json.dumps({"history": [entry(1)]}))
    state = state_of(tmp_path)
    assert state.status == "waiting" and len(state.rounds) == 1
    assert RunFiles().steps == []
