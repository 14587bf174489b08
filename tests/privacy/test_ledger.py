"""The ledger refuses before it is spent, forgets nothing, and notices what is done to it."""

import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from privacy.accountant import Spend, epsilon
from privacy.ledger import Ledger
from privacy.policy import PrivacyPolicy
from protocol import audit
from protocol.errors import BudgetError, PrivacyError

REPOSITORY = Path(__file__).resolve().parents[2]
POLICY = PrivacyPolicy(
    noise_multiplier=10.0,
    clip_norm=1.0,
    sampling_rate=1.0,
    steps_per_round=1,
    max_rounds=50,
    delta=1e-5,
    study_epsilon=1.5,
    lifetime_epsilon=2.0,
    statistics_noise=10.0,
)
# Releases of all patients: their epsilon is exact, and quickly found.
ROUND = Spend(10.0, 1.0, 1)


def open_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "state" / "ledger.jsonl", head_path=folder / "ledger.head")


def log_of(folder: Path) -> Path:
    return folder / "state" / "ledger.jsonl"


def fill(folder: Path, study: str = "demo") -> list[str]:
    """Reserve and commit until the budget is spent."""
    ledger, names = open_ledger(folder), []
    while True:
        try:
            names.append(ledger.reserve(study, "segment", ROUND, POLICY))
        except BudgetError:
            return names
        ledger.commit(names[-1])


def test_a_study_stops_just_below_its_cap(tmp_path: Path) -> None:
    names = fill(tmp_path)
    spent = open_ledger(tmp_path).spent(POLICY.delta, "demo")
    assert spent == epsilon([ROUND] * len(names), POLICY.delta) <= POLICY.study_epsilon
    assert epsilon([ROUND] * (len(names) + 1), POLICY.delta) > POLICY.study_epsilon


def test_what_is_refused_is_not_written_and_named(tmp_path: Path) -> None:
    fill(tmp_path)
    before = log_of(tmp_path).read_bytes()
    words = r"declined: budget of study demo at this hospital would be epsilon 1\.50\d+ at delta 1"
    with pytest.raises(BudgetError, match=words) as refused:
        open_ledger(tmp_path).reserve("demo", "segment", ROUND, POLICY)
    assert refused.value.code == "E700"
    assert log_of(tmp_path).read_bytes() == before


def test_all_studies_share_the_lifetime(tmp_path: Path) -> None:
    first, second = fill(tmp_path, "one"), fill(tmp_path, "two")
    assert 0 < len(second) < len(first)
    ledger = open_ledger(tmp_path)
    assert ledger.spent(1e-5) == epsilon([ROUND] * (len(first) + len(second)), 1e-5) <= 2.0
    with pytest.raises(BudgetError, match="declined: budget of the lifetime"):
        ledger.reserve("three", "survey", ROUND, POLICY)
    # Something much weaker still fits.
    ledger.reserve("three", "survey", Spend(1000.0, 1.0, 1), POLICY)


def test_a_reservation_that_was_never_committed_counts(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    first, _ = (ledger.reserve("demo", "segment", ROUND, POLICY) for _ in range(2))
    ledger.commit(first)
    assert [e.committed for e in ledger.entries()] == [True, False]
    assert open_ledger(tmp_path).spent(1e-5) == epsilon([ROUND, ROUND], 1e-5)


def test_committing_twice_is_committing_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    name = ledger.reserve("demo", "segment", ROUND, POLICY)
    ledger.commit(name)
    head = ledger.head
    ledger.commit(name)
    assert ledger.head == head
    with pytest.raises(PrivacyError, match="no such reservation"):
        ledger.commit("0" * 64)


def test_rounds_beyond_the_policy_are_declined(tmp_path: Path) -> None:
    ledger, policy = open_ledger(tmp_path), POLICY.model_copy(update={"max_rounds": 3})
    for index in (1, 3, 3):
        ledger.reserve("demo", "segment", ROUND, policy, round_index=index)
    for index in (0, 4):
        with pytest.raises(BudgetError, match=rf"round {index} of segment in study demo; .* 3 "):
            ledger.reserve("demo", "segment", ROUND, policy, round_index=index)
    assert [e.round_index for e in ledger.entries()] == [1, 3, 3]


def test_another_delta_is_accounted_for_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    ledger, count = open_ledger(tmp_path), len(open_ledger(tmp_path).entries())
    assert ledger.spent(1e-9) == epsilon([ROUND] * count, 1e-9) > ledger.spent(1e-5)
    strict = POLICY.model_copy(update={"delta": 1e-9})
    with pytest.raises(BudgetError, match="at delta 1e-09"):
        ledger.reserve("demo", "segment", Spend(1e3, 1.0, 1), strict)
    mild = POLICY.model_copy(update={"delta": 1e-3})
    ledger.reserve("demo", "segment", ROUND, mild)
    assert ledger.spent(1e-3) == epsilon([ROUND] * (count + 1), 1e-3)


def test_the_ledger_never_tells_less_than_it_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(tmp_path)
    ledger.reserve("demo", "segment", ROUND, POLICY)
    told = ledger.spent(1e-5)
    # An accountant of another version, that finds less.
    monkeypatch.setattr("privacy.ledger.epsilon", lambda history, delta: 0.1)
    assert ledger.spent(1e-5) == ledger.spent(1e-5, "demo") == told
    ledger.reserve("demo", "segment", ROUND, POLICY)
    assert ledger.entries()[-1].lifetime_epsilon == told


def test_sampled_steps_compose_with_noised_sums(tmp_path: Path) -> None:
    ledger, spends = open_ledger(tmp_path), [Spend(2.0, 0.1, 20), Spend(20.0, 1.0, 3)]
    for spend in spends:
        ledger.reserve("demo", "mixed", spend, POLICY)
    assert ledger.spent(1e-5) == pytest.approx(epsilon(spends, 1e-5))
    assert [e.spend for e in ledger.entries()] == spends


def test_no_decision_depends_on_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(folder: Path, year: int) -> list[tuple[float, bool]]:
        monkeypatch.setattr(audit, "_utc_now", lambda: datetime(year, 1, 1, tzinfo=UTC))
        monkeypatch.setattr(audit.append, "__kwdefaults__", {"sync": False, "now": audit._utc_now})
        fill(folder)
        return [(e.lifetime_epsilon, e.committed) for e in open_ledger(folder).entries()]

    assert told(tmp_path / "a", 1970) == told(tmp_path / "b", 2100)
    assert b"1970-01-01" in log_of(tmp_path / "a").read_bytes()


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    fill(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def test_a_name_that_could_be_a_persons_is_refused(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for study, purpose in (("demo", "DOE^JANE"), ("a/b", "segment"), ("demo", "x" * 65)):
        with pytest.raises(PrivacyError, match="letters, digits, spaces"):
            ledger.reserve(study, purpose, ROUND, POLICY)
    assert ledger.entries() == ()


# --- what reaches the disk, and when


def test_the_line_is_on_the_disk_before_the_head_and_both_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[int, str] = {}
    calls: list[str] = []

    def note(name: str, real: Callable[..., Any]) -> None:
        def call(first: Any, *given: Any, **named: Any) -> Any:
            result = real(first, *given, **named)
            if name == "open":
                names[result] = Path(first).name
            elif name == "replace":
                calls.append(f"replace {Path(given[0]).name}")
            else:
                calls.append(f"{name} {names.get(first, '')}")
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("open", "write", "fsync", "replace"):
        note(name, getattr(os, name))
    ledger = open_ledger(tmp_path)
    head = ["write ledger.draft", "fsync ledger.draft", "replace ledger.head"]
    line = ["write ledger.jsonl", "fsync ledger.jsonl"]
    name = ledger.reserve("demo", "segment", ROUND, POLICY)
    assert calls == [*line, "fsync state", *head, f"fsync {tmp_path.name}"]
    calls.clear()
    ledger.commit(name)
    assert calls == [*line, *head, f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_fails_refuses_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    ledger = open_ledger(tmp_path)
    ledger.reserve("demo", "segment", ROUND, POLICY)

    def fail(*given: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(PrivacyError, match=r"cannot be written \(No space left on device\)"):
            ledger.reserve("demo", "segment", ROUND, POLICY)
    # The refused one may have reached the disk and then counts; the ledger goes on either way.
    assert len(open_ledger(tmp_path).entries()) == (1 if call == "write" else 2)
    ledger.reserve("demo", "segment", ROUND, POLICY)


def test_a_disk_that_takes_half_a_line_refuses_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, real = open_ledger(tmp_path), os.write
    ledger.reserve("demo", "segment", ROUND, POLICY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: real(file, data[: len(data) // 2]))
        with pytest.raises(PrivacyError, match="a line was not taken whole"):
            ledger.reserve("demo", "segment", ROUND, POLICY)
    assert len(ledger.entries()) == 1
    ledger.reserve("demo", "segment", ROUND, POLICY)
    assert len(ledger.entries()) == 2


def test_forty_kills_cost_no_round_and_break_no_cap() -> None:
    script = REPOSITORY / "benchmarks" / "ledger_crashes.py"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "40", "--seed", "7"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    kills = re.match(r"(\d+) kills in", done.stdout)
    assert kills is not None and int(kills[1]) >= 40


def spend_all(folder: Path) -> None:
    fill(folder, f"study {os.getpid() % 2}")


def test_processes_that_reserve_at_once_share_the_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=spend_all, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    entries = open_ledger(tmp_path).entries()
    total = epsilon([e.spend for e in entries], POLICY.delta)
    assert total <= POLICY.lifetime_epsilon
    for study in {e.study for e in entries}:
        part = [e.spend for e in entries if e.study == study]
        assert epsilon(part, POLICY.delta) <= POLICY.study_epsilon
    # Nothing was left on the table either: one round more would not have fitted.
    assert epsilon([ROUND] * (len(entries) + 1), 1e-5) > 2.0 or len({e.study for e in entries}) == 1


# --- what is done to it


def small(folder: Path, rounds: int = 2) -> Ledger:
    ledger = open_ledger(folder)
    for _ in range(rounds):
        ledger.commit(ledger.reserve("demo", "segment", ROUND, POLICY))
    return ledger


def refuses(ledger: Ledger) -> bool:
    try:
        ledger.reserve("demo", "segment", ROUND, POLICY)
    except PrivacyError as error:
        assert "put the newest copies of both files back" in error.sentence
        return True
    return False


def test_truncation_at_every_byte_is_noticed(tmp_path: Path) -> None:
    ledger, log = small(tmp_path), log_of(tmp_path)
    whole = log.read_bytes()
    for length in range(len(whole)):
        log.write_bytes(whole[:length])
        assert refuses(ledger), length
        assert log.read_bytes() == whole[:length]
    log.unlink()
    assert refuses(ledger)
    log.write_bytes(whole)
    assert not refuses(ledger)


def test_one_byte_changed_anywhere_is_noticed(tmp_path: Path) -> None:
    ledger, log, head = small(tmp_path, 1), log_of(tmp_path), tmp_path / "ledger.head"
    for path in (log, head):
        whole = path.read_bytes()
        for place, byte in enumerate(whole):
            # Another case of a letter; another digit.
            for other in (byte ^ 0x20, byte ^ 0x01):
                path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
                assert refuses(ledger), (path.name, place, other)
        path.write_bytes(whole)
    assert not refuses(ledger)


def test_an_older_copy_put_back_is_noticed(tmp_path: Path) -> None:
    ledger, log, head = small(tmp_path), log_of(tmp_path), tmp_path / "ledger.head"
    old_log, old_head = log.read_bytes(), head.read_bytes()
    ledger.reserve("demo", "segment", ROUND, POLICY)
    ledger.reserve("demo", "segment", ROUND, POLICY)
    new_log, new_head = log.read_bytes(), head.read_bytes()
    log.write_bytes(old_log)
    with pytest.raises(PrivacyError, match="has 4 lines and its head file says 6; an older copy"):
        ledger.spent(1e-5)
    log.write_bytes(new_log)
    head.write_bytes(old_head)
    with pytest.raises(PrivacyError, match="do not belong together"):
        ledger.spent(1e-5)
    head.unlink()
    assert refuses(ledger)
    head.write_bytes(new_head)
    assert len(ledger.entries()) == 4


def test_another_ledger_under_the_same_head_is_noticed(tmp_path: Path) -> None:
    small(tmp_path / "a")
    small(tmp_path / "b")
    log_of(tmp_path / "a").write_bytes(log_of(tmp_path / "b").read_bytes())
    assert refuses(open_ledger(tmp_path / "a"))


def test_a_crash_between_the_two_writes_is_made_good(tmp_path: Path) -> None:
    ledger, log, head = small(tmp_path), log_of(tmp_path), tmp_path / "ledger.head"
    old_head, old_log = head.read_bytes(), log.read_bytes()
    ledger.reserve("demo", "segment", ROUND, POLICY)
    new_log, new_head = log.read_bytes(), head.read_bytes()
    # The line arrived and the head did not: it counts.
    head.write_bytes(old_head)
    assert len(ledger.entries()) == 3 and head.read_bytes() == new_head
    # A piece of the line arrived: nobody was told of it, and it is dropped, whatever its length.
    for length in range(len(old_log), len(new_log)):
        log.write_bytes(new_log[:length])
        head.write_bytes(old_head)
        assert len(ledger.entries()) == 2
        assert log.read_bytes() == old_log and head.read_bytes() == old_head


def test_a_foreign_line_is_refused(tmp_path: Path) -> None:
    ledger = small(tmp_path)
    audit.append(log_of(tmp_path), "refund", {"reservation": ledger.entries()[0].reservation})
    assert refuses(ledger)


def test_a_ledger_that_is_not_there_is_empty_and_makes_nothing(tmp_path: Path) -> None:
    assert open_ledger(tmp_path).entries() == () and open_ledger(tmp_path).spent(1e-5) == 0
    assert list(tmp_path.iterdir()) == []
