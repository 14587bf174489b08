"""A finished run's record: any byte changed is found, and the hospitals' logs agree with it."""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from client.cli import app as client_cli
from client.recording import audit_log
from protocol import audit
from protocol.config import Study
from protocol.errors import QuorumError
from server.cli import app as server_cli
from server.model_card import front_matter
from server.report.write import write_report
from server.results import load_results
from server.study import run_study
from server.verification import verify_run

spec = importlib.util.spec_from_file_location(
    "secure_hospitals", Path(__file__).with_name("secure_hospitals.py")
)
assert spec is not None and spec.loader is not None
secure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(secure)
kit = secure.kit

TRAIN = "train.prognosis"
TERMS = {
    "noise_multiplier": 2.0,
    "clip_norm": 1.0,
    "sampling_rate": 0.5,
    "steps_per_round": 2,
    "max_rounds": 20,
    "delta": 1e-3,
    "study_epsilon": 1e6,
    "lifetime_epsilon": 1e6,
    "statistics_noise": 2.0,
}


SECTION = {
    "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
    "covariates": ["age", "gene_12"],
    "num_intervals": 4,
    "max_horizon_months": 48,
    "rounds": 2,
    "training": {"learning_rate": 0.05, "epochs": 1},
}


def study(**changes: Any) -> Study:
    return Study.model_validate(
        {
            "name": "tab",
            "seed": 3,
            "hospitals": {"train": ["h0", "h1"], "external": ["h2"]},
            "stages": ["survey", "prognosis", "validate"],
            "prognosis": SECTION,
            "validate": {"bootstrap": 5, "thresholds": [0.3], "subgroups": False},
            "rounds": {"join_s": 5},
            "ranges": {"gene_12": [-3, 3]},
            **changes,
        }
    )


def hospitals(folder: Path, private: str = "") -> list[Path]:
    folder.mkdir()
    sites = [kit.write_hospital(folder, f"h{k}", kit.cohort(k, 60), min_cell=5) for k in range(3)]
    for site in sites:
        if site.name == private:
            (site / "policy.yaml").write_text(yaml.safe_dump({"privacy": TERMS}))
    return sites


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A run with one hospital that adds noise, and the hospitals."""
    folder = tmp_path_factory.mktemp("finished")
    sites = hospitals(folder / "sites", private="h1")
    run_study(secure.FaultyGrid(sites), study(), folder / "run")
    return folder / "run", sites


def wrong(run_dir: Path, *logs: Path) -> list[str]:
    return [str(check) for check in verify_run(run_dir, logs) if not check.good]


class LaterStudy(Study):
    """What a study may become: a key more, with a default."""

    colour: str = "red"


def test_a_later_version_whose_studies_have_more_keys_finds_nothing_wrong(
    finished: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.verification.Study", LaterStudy)
    assert wrong(finished[0]) == []


def test_nothing_is_wrong_with_a_run_that_was_left_alone(
    finished: tuple[Path, list[Path]],
) -> None:
    run_dir, sites = finished
    checks = list(verify_run(run_dir, [audit_log(site) for site in sites]))
    assert [str(check) for check in checks if not check.good] == []
    named = {check.what for check in checks}
    assert {"record.json", "report.html", "results.json", "sbom.json"} <= named
    assert {"prognosis/final.safetensors", "prognosis/model_card.md", "network prognosis"} <= named
    assert sum("agree with its log" in check.told for check in checks) == 3
    # Counted by hand: what the centre sent to h0 is what h0 wrote down.
    lines = [line["detail"] for line in audit.read(run_dir / "audit.jsonl")]
    sent = [line["request"] for line in lines if line.get("site") == "h0" and "carried" in line]
    first = [line["detail"] for line in audit.read(audit_log(sites[0]))][: len(sent) // 2]
    assert sent == [line["request"] for line in first for _ in range(2)]
    # Weights in and out of a round, at both ends and in the checkpoint's history.
    second = next(line for line in first if line["type"] == TRAIN and line["round"] == 2)
    history = json.loads((run_dir / "prognosis/round-00002.json").read_text())["history"]
    assert second["received"]["arrays"] == history[0]["fingerprint"]


def flips(path: Path) -> list[tuple[int, bytes]]:
    """Return the bytes of a file with one changed, at positions from the first to the last."""
    data = path.read_bytes()
    places = sorted({0, 1, len(data) // 3, len(data) // 2, 9 * len(data) // 10, len(data) - 1})
    return [(p, data[:p] + bytes([data[p] ^ 1]) + data[p + 1 :]) for p in places]


def test_one_byte_of_any_file_of_a_run_is_found(
    finished: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    record = json.loads((run_dir / "record.json").read_text())
    names = [*record["artefacts"], "audit.jsonl", "record.json"]
    kinds = {Path(name).suffix for name in names}
    assert kinds == {".json", ".jsonl", ".html", ".md", ".safetensors"}
    for name in names:
        path = run_dir / name
        whole = path.read_bytes()
        for position, changed in flips(path):
            path.write_bytes(changed)
            found = wrong(run_dir)
            assert any(name.partition(".")[0] in line or "audit log" in line for line in found), (
                name,
                position,
            )
        path.unlink()
        assert wrong(run_dir), f"{name} is gone"
        path.write_bytes(whole)
    assert wrong(run_dir) == []


def test_one_byte_of_a_hospitals_log_is_found_at_both_ends(
    finished: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    run_dir, sites = finished
    site = tmp_path / "h1"
    shutil.copytree(sites[1], site)
    for path in (
        audit_log(site),
        site / ".concors" / "privacy" / "ledger.jsonl",
        site / "ledger.head",
    ):
        whole = path.read_bytes()
        for _, changed in flips(path):
            path.write_bytes(changed)
            done = CliRunner().invoke(client_cli, ["verify", str(site)])
            assert (done.exit_code, "WRONG" in done.output) == (1, True)
            if path == audit_log(site):
                assert wrong(run_dir, path)
        path.write_bytes(whole)
    done = CliRunner().invoke(client_cli, ["verify", str(site)])
    assert (done.exit_code, "WRONG" in done.output) == (0, False)


def rewritten(path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Write a log anew with a valid chain and its times, as somebody would who knows how."""
    lines = list(audit.read(path))
    path.unlink()
    for line in lines:
        changed = change(line)
        if changed is not None:
            time = datetime.fromisoformat(line["time"])
            audit.append(path, changed["event"], changed["detail"], now=lambda time=time: time)


def test_lines_that_are_cut_or_rewritten_with_a_valid_chain_are_found(
    finished: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    run_dir, copy = tmp_path / "run", tmp_path / "audit.jsonl"
    shutil.copytree(finished[0], run_dir)
    own = audit_log(finished[1][0])
    log = run_dir / "audit.jsonl"
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert "the log does not name it, although the run has results" in wrong(run_dir)[0]
    log.write_bytes(whole)

    shutil.copy(own, copy)
    rewritten(copy, lambda line: line if line["index"] != 2 else None)
    assert "it was rewritten" in wrong(run_dir, copy)[0]
    copy.write_bytes(b"".join(own.read_bytes().splitlines(keepends=True)[:-1]))
    assert "lines were cut, or it is old" in wrong(run_dir, copy)[0]

    def other_weights(line: dict[str, Any]) -> dict[str, Any]:
        detail = line["detail"]
        if line["event"] == "received" and detail["type"] == TRAIN and detail["site"] == "h0":
            detail["carried"]["arrays"] = "0" * 64
        return line

    # The whole chain of the centre is new and valid; the hospital's half of it is not his.
    rewritten(log, other_weights)
    assert any("h0 sent other weights than its log says" in line for line in wrong(run_dir, own))
    log.write_bytes(whole)
    rewritten(log, lambda line: line if line["detail"].get("type") != "query.scores" else None)
    assert any("the run's log does not have" in line for line in wrong(run_dir, own))


def test_a_file_that_is_added_and_a_record_of_another_study_are_found(
    finished: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    extra = run_dir / "prognosis" / "round-00003.json"
    extra.write_text("{}")
    assert wrong(run_dir) == [
        "WRONG prognosis/round-00003.json: record.json does not name it; it was added since."
    ]
    extra.unlink()
    # A report written again from the same results is no forgery: the log says so.
    assert CliRunner().invoke(server_cli, ["report", str(run_dir)]).exit_code == 0
    assert wrong(run_dir) == []
    (run_dir / "report.html").write_text("better")
    done = CliRunner().invoke(server_cli, ["verify", str(run_dir)])
    assert done.exit_code == 1
    assert [line for line in done.output.splitlines() if "WRONG" in line] == [
        "WRONG report.html: it is not the one that record.json names; it was changed since, so put "
        "the right one back from a copy."
    ]


def test_the_same_seed_gives_the_same_bytes_whatever_the_logs_say(
    finished: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    run_dir, sites = finished
    logs = [tmp_path / f"{site.name}.jsonl" for site in sites]
    # This run finds longer logs: other heads travel, and nothing else changes.
    run_study(secure.FaultyGrid(sites), study(), tmp_path / "again")
    for site, log in zip(sites, logs, strict=True):
        shutil.copy(audit_log(site), log)
    for file in (
        "results.json",
        "report.html",
        "prognosis/final.safetensors",
        "prognosis/final.json",
        "prognosis/model_card.md",
    ):
        assert (run_dir / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    # The hospitals' lines about the other run are of another time.
    assert wrong(run_dir, *logs) == wrong(tmp_path / "again", *logs) == []


def test_a_log_that_is_put_back_during_a_run_is_told_at_once(tmp_path: Path) -> None:
    sites = hospitals(tmp_path / "sites", private="h1")
    kept: dict[Path, bytes] = {}

    def put_back(site: str, kind: str, number: int) -> bool:
        own = sites[int(site[1])]
        ledger = own / ".concors" / "privacy" / "ledger.jsonl"
        if (site, kind, number) == ("h1", TRAIN, 1):
            kept.update({path: path.read_bytes() for path in (ledger, own / "ledger.head")})
        if (site, kind, number) == ("h1", TRAIN, 3):
            for path, data in kept.items():
                path.write_bytes(data)
        if (site, kind, number) == ("h0", TRAIN, 2):
            audit_log(own).unlink()
        return False

    short = study(stages=["survey", "prognosis"], prognosis=SECTION | {"rounds": 3})
    results = run_study(secure.FaultyGrid(sites, before=put_back), short, tmp_path / "run")
    assert [(b.hospital, b.which, b.how) for b in results.broken_logs] == [
        ("h0", "audit log", "went back"),
        ("h1", "privacy ledger", "went back"),
    ]
    assert load_results(tmp_path / "run" / "results.json").broken_logs == results.broken_logs
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The privacy ledger of h1 went back" in page
    lines = list(audit.read(tmp_path / "run" / "audit.jsonl"))
    events = [(line["event"], line["detail"].get("site")) for line in lines]
    at = events.index(("head.regressed", "h0"))
    assert events[at - 1] == ("received", "h0") and lines[at - 1]["detail"]["round"] == 2
    found = wrong(tmp_path / "run", *(audit_log(site) for site in sites))
    assert "the audit log of h0 went back during the run" in found[0]
    assert any("h0" in line and "hospital's log" in line for line in found[1:])
    # The hospital finds it as well, though both files of its ledger agree.
    done = CliRunner().invoke(client_cli, ["verify", str(sites[1])])
    assert done.exit_code == 1 and "an older copy was put back" in done.output
    card = front_matter((tmp_path / "run/prognosis/model_card.md").read_text())
    assert "The privacy ledger of h1 went back during the run." in card["limits"]


def test_masked_replies_bring_heads_and_agree_with_the_hospitals_logs(tmp_path: Path) -> None:
    sites = secure.hospitals(tmp_path / "sites", 3, patients=40)
    run_study(secure.FaultyGrid(sites), secure.training_study(3), tmp_path / "run")
    logs = [audit_log(site) for site in sites]
    assert wrong(tmp_path / "run", *logs) == []
    trained = [
        line["detail"]
        for line in audit.read(tmp_path / "run" / "audit.jsonl")
        if line["event"] == "received" and line["detail"]["type"] == TRAIN
    ]
    assert len(trained) == 2 * 3 and all("heads" in line for line in trained)


def test_a_refusal_stands_at_both_ends(tmp_path: Path) -> None:
    sites = secure.hospitals(tmp_path / "sites", 3, patients=40)
    # They insist on sums, and this study wants models.
    plain = secure.training_study(3, secure_aggregation=None)
    with pytest.raises(QuorumError):
        run_study(secure.FaultyGrid(sites), plain, tmp_path / "run")
    last = list(audit.read(audit_log(sites[0])))[-1]["detail"]
    assert (last["outcome"], last["type"], last["round"]) == ("E710", TRAIN, 1)
    logs = [audit_log(site) for site in sites]
    # The run is not finished, so there is no record yet; what there is holds.
    assert wrong(tmp_path / "run", *logs) == []
    rewritten(logs[0], lambda line: line if line["detail"]["outcome"] == "answered" else None)
    assert "is a reply of h0 (train.prognosis) that its own log does not have" in str(
        wrong(tmp_path / "run", *logs)
    )


def test_a_checkpoint_of_an_unfinished_run_is_held_against_the_log(tmp_path: Path) -> None:
    sites = hospitals(tmp_path / "sites")
    lost = secure.FaultyGrid(sites, before=lambda s, kind, n: (kind, n) == (TRAIN, 2))
    short = study(stages=["survey", "prognosis"])
    with pytest.raises(QuorumError):
        run_study(lost, short, tmp_path / "run")
    assert wrong(tmp_path / "run") == []
    path = tmp_path / "run" / "prognosis" / "round-00001.safetensors"
    manifest = path.with_suffix(".json")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "is not the one that round-00001.json names" in wrong(tmp_path / "run")[0]
    # Somebody who mends the manifest as well does not have the log.
    import hashlib

    values = json.loads(manifest.read_text())
    manifest.write_text(
        json.dumps(values | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    )
    assert "is not the model that the log names" in wrong(tmp_path / "run")[0]
    path.write_bytes(data)
    manifest.write_text(json.dumps(values, sort_keys=True, separators=(",", ":")))
    # It goes on from there, and one record holds both parts of the run.
    run_study(secure.FaultyGrid(sites), short, tmp_path / "run")
    assert wrong(tmp_path / "run", *(audit_log(site) for site in sites)) == []


def test_a_hospitals_log_holds_nothing_of_a_patient(finished: tuple[Path, list[Path]]) -> None:
    _, sites = finished
    allowed = {"tab", "prognosis", "answered", "E710", *(site.name for site in sites)}
    keys: set[str] = set()

    def walk(value: Any, key: str = "") -> None:
        keys.add(key)
        if isinstance(value, dict):
            for name, part in value.items():
                walk(part, name)
        elif isinstance(value, list):
            for part in value:
                walk(part, key)
        elif isinstance(value, str):
            if key == "sentence":
                # Why something was refused: in words of ours, and they count no patients.
                assert not re.search(r"\bP\d", value), value
                return
            is_hash = len(value) == 64 and set(value) <= set("0123456789abcdef")
            kind = value.partition(".")[0] in {"query", "train", "evaluate"}
            assert is_hash or kind or value in allowed, (key, value)
        elif value is not None:
            assert key in {"node", "round", "ledger", "delta", "lifetime", "of_study"}, key

    for site in sites:
        for line in audit.read(audit_log(site)):
            walk(line["detail"])
    assert {"data", "received", "sent", "code", "epsilon"} <= keys
    # The hash of the data is keyed: whoever has the same data cannot find out that he has.
    data = {
        line["detail"]["data"]
        for site in sites
        for line in audit.read(audit_log(site))
        if "data" in line["detail"]
    }
    assert len(data) == 3


def test_a_model_card_says_for_whom_how_well_and_at_what_price(
    finished: tuple[Path, list[Path]],
) -> None:
    run_dir, sites = finished
    text = (run_dir / "prognosis" / "model_card.md").read_text()
    card, results = front_matter(text), load_results(run_dir / "results.json")
    assert card["weights"]["fingerprint"] == results.study.models["prognosis"]
    assert [h["name"] for h in card["training"]["hospitals"]] == ["h0", "h1"]
    assert [h["name"] for h in card["training"]["external_hospitals"]] == ["h2"]
    outside = next(row for row in card["metrics"] if row["set"] == "external")
    pairs = results.arms["federated"].sites["h2"].pairs
    assert pairs is not None
    assert (outside["value"], outside["lower"]) == (pairs.c_index, pairs.interval()[0])
    from client.policy import site_ledger

    entries = site_ledger(sites[1]).entries()
    spent = card["privacy"]["study_releases"]
    assert set(spent) == {"h1"} and spent["h1"]["delta"] == 1e-3
    assert spent["h1"]["epsilon"] == entries[-1].study_epsilon > 0
    assert any("without differential privacy at h0:" in limit for limit in card["limits"])
    assert f"{outside['value']:.3f} | {outside['lower']:.3f} to {outside['upper']:.3f}" in text
    assert "h1: everything this study released" in text


def test_small_counts_stay_small_on_a_card(finished: tuple[Path, list[Path]]) -> None:
    from server.model_card import card_values, render_card

    results = load_results(finished[0] / "results.json")
    few = [h.model_copy(update={"patients": None, "events": None}) for h in results.hospitals]
    results = results.model_copy(update={"hospitals": tuple(few)})
    nothing = {"study_releases": {}, "updates": {}}
    named = {"file": "f", "sha256": "0" * 64, "fingerprint": "1" * 64}
    values = card_values(study(), results, "prognosis", named, "2" * 64, nothing)
    assert {h["patients"] for h in values["training"]["hospitals"]} == {"<5"}
    text = render_card(values)
    assert "so no ε is claimed" in text and front_matter(text) == values
    noise = {"study_releases": {}, "updates": {"epsilon": 1.25, "delta": 1e-5}}
    text = render_card(card_values(study(), results, "prognosis", named, "2" * 64, noise))
    assert "cost a patient ε = 1.25 at δ = 1.0e-05" in text
    assert "without differential privacy" not in text


def test_a_broken_record_is_shown_and_a_whole_one_is_not(
    finished: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    results = load_results(finished[0] / "results.json")
    assert "A record was broken" not in (finished[0] / "report.html").read_text()
    broken = {"hospital": "h0", "which": "audit log", "how": "contradicts itself"}
    short = results.model_copy(update={"arms": {}, "training": {}, "subgroups": ()}).model_dump()
    write_report(short | {"broken_logs": [broken]}, tmp_path / "report.html")
    assert "The audit log of h0 contradicts itself" in (tmp_path / "report.html").read_text()


def test_a_server_knows_the_heads_of_its_earlier_runs(tmp_path: Path) -> None:
    sites = hospitals(tmp_path / "sites")
    (tmp_path / "server" / "hospitals").mkdir(parents=True)
    runs = tmp_path / "server" / "runs"
    only_survey = study(stages=["survey"])
    run_study(secure.FaultyGrid(sites), only_survey, runs / "a")
    assert run_study(secure.FaultyGrid(sites), only_survey, runs / "b").broken_logs == ()
    audit_log(sites[0]).unlink()
    [broken] = run_study(secure.FaultyGrid(sites), only_survey, runs / "c").broken_logs
    assert (broken.hospital, broken.which) == ("h0", "audit log")
    # It was told once, and is the log from now on.
    assert run_study(secure.FaultyGrid(sites), only_survey, runs / "d").broken_logs == ()
