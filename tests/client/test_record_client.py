"""The hospital's own record: what it verifies of itself, and what it writes of its environment."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity
from typer.testing import CliRunner

from client.cli import app
from client.policy import site_ledger
from client.recording import audit_log, record_answer, record_refusal
from client.verification import verify_site
from privacy.accountant import Spend
from privacy.policy import PrivacyPolicy
from protocol import audit
from protocol.config import Study
from protocol.custody import Heads, carried, heads_in
from protocol.payload import Answer, Question, Refusal

POLICY = PrivacyPolicy.model_validate(
    {
        "noise_multiplier": 2.0,
        "clip_norm": 1.0,
        "sampling_rate": 0.1,
        "steps_per_round": 5,
        "max_rounds": 9,
        "delta": 1e-3,
        "study_epsilon": 1e6,
        "lifetime_epsilon": 1e6,
        "statistics_noise": 2.0,
    }
)
SPEND = Spend(noise_multiplier=2.0, sampling_rate=0.1, num_steps=5)
STUDY = Study.model_validate({"name": "s", "seed": 1, "hospitals": {"train": ["alder", "b"]}})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "alder"
    (folder / ".concors").mkdir(parents=True)
    (folder / "site.yaml").write_text(
        "name: alder\noutcomes: {path: o.csv, patient: id, months: m, event: e}\n"
    )
    return folder


@pytest.fixture
def answered(site: Path) -> tuple[Message, Context, RecordDict]:
    """A question, who it came to, and an answer that is not written down yet."""
    TaskIdentity.task_id, TaskIdentity.run_id = 1, 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    message = Message(Question(STUDY, "survey").to_records(), 9, "query.survey")
    context = Context(1, 9, {"site": str(site)}, RecordDict(), {})
    return message, context, Answer({"patients": 7}).to_records()


def reserve(site: Path, study: str = "s", number: int = 1) -> None:
    site_ledger(site).reserve(study, "segment", SPEND, POLICY, round_index=number)


def wrong(site: Path) -> list[str]:
    return [str(check) for check in verify_site(site) if not check.good]


def test_a_line_says_who_what_which_and_what_was_spent(
    site: Path, answered: tuple[Message, Context, RecordDict]
) -> None:
    message, context, content = answered
    before = carried(content)
    record_answer(site, message, context, content, site="alder")
    assert heads_in(content, "") == Heads(audit.verify(audit_log(site)), None, None)
    reserve(site, "another")
    reserve(site)
    record_answer(site, message, context, content, site="alder", data="d" * 64)
    first, second = (line["detail"] for line in audit.read(audit_log(site)))
    newest = site_ledger(site).entries()[-1]
    assert first["sent"] == before and "data" not in first and first["ledger"] is None
    assert (second["site"], second["node"], second["study"]) == ("alder", 9, "s")
    assert second["epsilon"] == {
        "delta": 1e-3,
        "lifetime": newest.lifetime_epsilon,
        "of_study": newest.study_epsilon,
    }
    assert newest.lifetime_epsilon > newest.study_epsilon > 0
    told = heads_in(content, "")
    assert told is not None and told.ledger == site_ledger(site).head
    # Of other consortia's studies nothing is told.
    assert told.spent == (newest.study_epsilon, 1e-3)


def test_a_refusal_is_written_down_without_an_answer(
    site: Path, answered: tuple[Message, Context, RecordDict]
) -> None:
    message, context, _ = answered
    record_refusal(message, context, Refusal("E200", "No."))
    [line] = audit.read(audit_log(site))
    assert (line["event"], line["detail"]["outcome"]) == ("query.survey", "E200")
    assert line["detail"]["sentence"] == "No."
    assert "sent" not in line["detail"]


def test_a_broken_ledger_is_told_as_gone_and_nothing_is_hidden(
    site: Path, answered: tuple[Message, Context, RecordDict]
) -> None:
    message, context, content = answered
    reserve(site)
    (site / "ledger.head").write_text("nonsense")
    record_answer(site, message, context, content, site="alder")
    [line] = audit.read(audit_log(site))
    assert line["detail"]["ledger"] == "E710"
    told = heads_in(content, "")
    assert told is not None and told.ledger is None


def test_an_older_copy_of_ledger_and_head_together_is_found(
    site: Path, answered: tuple[Message, Context, RecordDict]
) -> None:
    message, context, content = answered
    reserve(site)
    ledger = site / ".concors" / "privacy" / "ledger.jsonl"
    old = {path: path.read_bytes() for path in (ledger, site / "ledger.head")}
    reserve(site, number=2)
    record_answer(site, message, context, content, site="alder")
    assert wrong(site) == []
    new = {path: path.read_bytes() for path in old}
    for path, data in old.items():
        path.write_bytes(data)
    assert [line[:40] for line in wrong(site)] == ["WRONG ledger as the audit log saw it: li"]
    for path in old:
        path.unlink()
    assert "line 1 of the audit log noted 2 lines of the ledger" in wrong(site)[0]
    for path, data in new.items():
        path.write_bytes(data)
    assert wrong(site) == []


def test_what_the_centre_noted_must_stand_in_the_log(
    site: Path, answered: tuple[Message, Context, RecordDict]
) -> None:
    message, context, content = answered
    runner = CliRunner()
    assert runner.invoke(app, ["verify", str(site)]).exit_code == 0
    missing = runner.invoke(app, ["verify", str(site), "--head", "a" * 64])
    assert missing.exit_code == 1 and "it is gone" in missing.output
    for _ in range(3):
        record_answer(site, message, context, content, site="alder")
    head = heads_in(content, "")
    assert head is not None
    good = runner.invoke(app, ["verify", str(site), "--head", head.log.hash])
    assert good.exit_code == 0
    log = audit_log(site)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert runner.invoke(app, ["verify", str(site)]).exit_code == 0
    cut = runner.invoke(app, ["verify", str(site), "--head", head.log.hash])
    assert cut.exit_code == 1 and "does not contain the noted hash" in cut.output


def test_verify_of_no_site_is_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert done.exit_code == 1 and "Traceback" not in done.output


def test_what_is_installed_is_written_and_its_hash_noted(site: Path) -> None:
    done = CliRunner().invoke(app, ["sbom", str(site)])
    assert done.exit_code == 0, done.output
    path = site / ".concors" / "sbom.json"
    [line] = audit.read(audit_log(site))
    assert line["detail"] == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert json.loads(path.read_text())["bomFormat"] == "CycloneDX"
    assert wrong(site) == [] and os.fspath(site) not in path.read_text()
