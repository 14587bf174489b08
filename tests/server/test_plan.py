"""The planner: what it says of a study that can answer, and of one that cannot."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from protocol.errors import ConfigError
from server.cli import app
from server.plan import Aims, followed_by_role, make_plan
from server.results import Hospital, Results, save_results
from server.sample_size import Followed

LARGE, SMALL = Followed(20_000, 4_000, 80_000.0), Followed(866, 119, 2_500.0)


def test_enough_is_said_plainly() -> None:
    plan = make_plan(LARGE, [Followed(5_000, 900, 20_000.0)], Aims(10))
    assert plan.answers and plan.events_per_parameter == 400
    assert "enough to develop the model" in plan.sentences[0]
    assert plan.sentences[1].startswith("The external hospitals are enough: an external C-index of")


def test_too_few_is_said_plainly_with_what_could_be_done() -> None:
    plan = make_plan(SMALL, [Followed(222, 32, 640.0)], Aims(39, r2=0.05))
    assert not plan.answers
    assert plan.patients_needed["shrinkage of at most 10 %"] == 6824
    assert plan.sentences[0].startswith("This study cannot develop the model it asks for")
    assert "at most 4 parameters could be fitted" in plan.sentences[0]
    assert 0 < plan.shrinkage < 0.6
    assert plan.c_interval == pytest.approx((0.6, 0.8), abs=0.02)
    assert "cannot answer how good the model is elsewhere" in plan.sentences[2]


def test_the_affordable_number_is_affordable() -> None:
    plan = make_plan(SMALL, [], Aims(4, r2=0.05))
    assert plan.patients_needed["shrinkage of at most 10 %"] <= SMALL.patients
    assert "no external hospital has an event" in plan.sentences[-1]


def test_a_survey_is_read_and_withheld_counts_left_out() -> None:
    rows = [
        Hospital(name="a", role="train", patients=100, events=20, person_years=300.0),
        Hospital(name="b", role="train", patients=None, events=None),
        Hospital(name="c", role="external", patients=50, events=7, person_years=120.0),
    ]
    training, external, withheld = followed_by_role(rows)
    assert (training, external, withheld) == (
        [Followed(100, 20, 300.0)],
        [Followed(50, 7, 120.0)],
        1,
    )


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *arguments])
    return result.exit_code, result.output


def test_the_command_plans_from_numbers_and_from_a_survey(tmp_path: Path) -> None:
    numbers = ["--patients", "866", "--events", "119", "--person-years", "2500"]
    code, text = run("--parameters", "39", *numbers)
    assert code == 1 and "This study cannot develop the model it asks for" in text
    rows = [{"name": "a", "role": "train", "patients": 866, "events": 119, "person_years": 2500.0}]
    study = {"name": "s", "seed": 1, "code_version": "0"}
    save_results(Results.of({"study": study, "hospitals": rows}), tmp_path / "results.json")
    assert run("--parameters", "39", "--results", str(tmp_path / "results.json")) == (code, text)


def test_the_command_without_numbers_says_what_it_needs() -> None:
    result = CliRunner().invoke(app, ["plan", "--parameters", "5"])
    assert isinstance(result.exception, ConfigError)
    assert "give --results, or --patients, --events" in result.exception.sentence
