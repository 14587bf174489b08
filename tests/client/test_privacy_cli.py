"""``concors-client spent`` and ``plan-privacy`` as they are typed."""

import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from client import privacy_cli
from client.cli import app
from client.policy import load_policy, site_ledger
from client.site import load_site
from privacy import planning
from privacy.accountant import Spend, epsilon
from protocol.errors import BudgetError

LINES = str.maketrans("│┃", "  ")
CANARY = "DOE-JANE-998877"
POLICY = """\
privacy:
  noise_multiplier: 6.0
  clip_norm: 1.0
  sampling_rate: 1.0
  steps_per_round: 2
  max_rounds: 30
  delta: 1.0e-4
  study_epsilon: 4
  lifetime_epsilon: 5
  statistics_noise: 12
"""
STUDY = """\
study:
  name: trial
  seed: 1
  hospitals: {train: [oak]}
  stages: [survey, segment, measure, prognosis]
  segment: {rounds: 10}
  prognosis: {rounds: 40}
"""
ROUND = Spend(6.0, 1.0, 2)


def told(result: Result) -> str:
    """Return what was printed as words, without lines of tables and colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    return " ".join(plain.translate(LINES).split())


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide terminal, so that no cell of a table is cut, whatever runs the tests."""
    monkeypatch.setattr(privacy_cli, "console", Console(width=200))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A hospital of outcomes, with a policy; its patients have names that must not be seen."""
    rows = "\n".join(f"{CANARY}-{n},{n + 1},{n % 2}" for n in range(40))
    (tmp_path / "outcomes.csv").write_text(f"patient,months,event\n{rows}\n")
    (tmp_path / "site.yaml").write_text(
        "name: oak\n"
        "outcomes: {path: outcomes.csv, patient: patient, months: months, event: event}\n"
    )
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


def spend(site: Path) -> int:
    """Two studies, until the lifetime is spent; the last reservation stays unfinished."""
    policy = load_policy(site, load_site(site)).privacy
    assert policy is not None
    ledger, count = site_ledger(site), 0
    try:
        while True:
            name = ledger.reserve(("first", "second")[count % 2], "segment", ROUND, policy)
            count += 1
            if count % 5:
                ledger.commit(name)
    except BudgetError:
        return count


def test_a_hospital_that_spent_nothing_says_so(site: Path) -> None:
    result = run("spent", str(site))
    assert result.exit_code == 0 and "oak: nothing was spent." in result.output
    assert not (site / ".concors").exists()


def test_what_was_spent_and_what_remains(site: Path) -> None:
    count = spend(site)
    result = run("spent", str(site))
    assert result.exit_code == 0, result.output
    total = epsilon([ROUND] * count, 1e-4)
    words = told(result)
    assert f"everything {total:.3f} 5 {5 - total:.3f} 0" in words
    half = epsilon([ROUND] * (count // 2), 1e-4)
    assert f"second {half:.3f} 4 {4 - half:.3f}" in words
    first = count - count // 2
    assert f"first segment {first}" in words and f"{2 * first} 6 1" in words
    assert "never finished counts like any other" in words


def test_the_plot_is_the_same_bytes_each_time(site: Path) -> None:
    spend(site)
    for name in ("a.svg", "b.svg"):
        assert run("spent", str(site), "--plot", str(site / name)).exit_code == 0
    text = (site / "a.svg").read_text()
    assert text == (site / "b.svg").read_text()
    assert text.startswith("<?xml") and "<path" in text
    refused = run("spent", str(site), "--plot", str(site / "none" / "c.svg"))
    assert refused.exit_code == 1 and "E100 the plot cannot be written" in refused.output


def test_an_altered_ledger_is_one_sentence(site: Path) -> None:
    spend(site)
    log = site / ".concors" / "privacy" / "ledger.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"num_steps":2', b'"num_steps":1', 1))
    result = run("spent", str(site))
    assert result.exit_code == 1
    assert "E710 privacy ledger ledger.jsonl was altered at line 1." in result.output
    assert "Traceback" not in result.output


def test_no_patient_stands_in_the_ledger_or_on_the_screen(site: Path) -> None:
    spend(site)
    screen = run("spent", str(site), "--plot", str(site / "a.svg")).output
    screen += run("plan-privacy", str(site)).output
    kept = [*(site / ".concors" / "privacy").iterdir(), site / "ledger.head", site / "a.svg"]
    from client.cohort import load_cohort
    from protocol.config import Preprocessing

    keys = [patient.key for patient in load_cohort(site, Preprocessing()).patients]
    assert len(keys) == 40
    everything = screen.encode() + b"".join(path.read_bytes() for path in kept)
    assert CANARY.encode() not in everything
    assert not [key for key in keys if key.encode() in everything]


def test_a_plan_before_any_study(site: Path) -> None:
    result = run("plan-privacy", str(site), "--rounds", "12")
    assert result.exit_code == 0, result.output
    words = told(result)
    assert f"one stage, 12 rounds 24 {epsilon([Spend(6.0, 1.0, 24)], 1e-4):.3f}" in words
    assert "3 rounds 6 rounds 12 rounds" in words
    assert "40 (here)" in words
    policy = load_policy(site, load_site(site)).privacy
    assert policy is not None
    for target in (1.0, 3.0, 8.0):
        assert f"{target:g} {planning.noise_needed(policy, target, 12):g}" in words
    for sentence in (planning.PROTECTED, *planning.NOT_PROTECTED):
        assert " ".join(sentence.split()) in words
    assert not (site / ".concors" / "privacy").exists()


def test_a_plan_of_a_study_counts_what_was_spent_before(site: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    count = spend(site)
    result = run(
        *("plan-privacy", str(site), "--config", str(study), "--patients", "60", "--answers", "3")
    )
    assert result.exit_code == 0, result.output
    words = told(result)
    assert "prognosis: 40 rounds are asked for, and the policy allows 30;" in words
    assert "segment, 10 rounds 20" in words and "prognosis, 30 rounds 60" in words
    planned = [Spend(6.0, 1.0, 80), Spend(12.0, 1.0, 3)]
    alone = epsilon(planned, 1e-4)
    both = epsilon([*planned, *[ROUND] * count], 1e-4)
    assert f"the study in all {alone:.3f}" in words
    assert f"everything, with what was spent before {both:.3f}, declined before the end" in words


def test_a_study_that_asks_for_less_privacy_is_refused(site: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY + "  privacy: {noise_multiplier: 1.0}\n")
    result = run("plan-privacy", str(site), "--config", str(study), "--patients", "60")
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert "E710 the study asks for privacy.noise_multiplier 1, and this hospital's" in words


def test_a_hospital_without_policy_learns_how_to_have_one(site: Path) -> None:
    (site / "policy.yaml").unlink()
    result = run("plan-privacy", str(site))
    assert result.exit_code == 1
    assert "has no privacy policy" in result.output and "policy.yaml" in result.output


def test_a_large_delta_is_remarked_upon(site: Path) -> None:
    result = run("plan-privacy", str(site), "--patients", "2000", "--rounds", "1")
    words = " ".join(result.output.split())
    assert "delta 0.0001 is large for 2000 patients" in words and "for example 5e-05" in words
