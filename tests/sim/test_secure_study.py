"""Studies with secure sums through the real apps: hospitals drop out, the sum stays exact."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.app import Message
from scipy.stats import chisquare

from protocol.arrays import Arrays, fingerprint
from protocol.config import Study
from protocol.errors import QuorumError
from server.centre import Centre
from server.findings import Findings, to_results
from server.hospitals import join
from server.progress import Progress
from server.report.write import render_report
from server.stages import STAGES


def _load() -> ModuleType:
    place = Path(__file__).with_name("secure_hospitals.py")
    spec = importlib.util.spec_from_file_location("secure_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
TRAIN, TELL, OPEN = "train.prognosis", "query.secure_tell", "query.secure_open"
STEP = 2.0**-24


def run(study: Study, grid: Any, folder: Path) -> Findings:
    nodes = join(grid, study.hospitals.all, study.rounds.join_s)
    centre, findings = Centre(grid, nodes, study, folder, Progress(folder)), Findings()
    for name in study.stages:
        STAGES[name](centre, findings)
    return findings


def plain(study: Study, names: list[str]) -> Study:
    """Return the same study without secure sums, of fewer hospitals."""
    changed = study.model_dump(mode="json", by_alias=True)
    changed |= {"secure_aggregation": None, "hospitals": {"train": names}}
    return Study.model_validate(changed)


def close(found: Arrays, expected: Arrays, tolerance: float) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance)


def test_ten_hospitals_of_which_three_drop_at_the_worst_moments(tmp_path: Path) -> None:
    """One never sends, two send and are gone before the sum is opened: exact to the step."""
    sites = kit.hospitals(tmp_path / "sites", 10, required=False)
    study = kit.training_study(10, prognosis={"rounds": 1})

    def before(site: str, kind: str, number: int) -> bool:
        return (site, kind) == ("h3", TRAIN) or (site in ("h0", "h7") and kind == TELL)

    grid = kit.FaultyGrid(sites, before)
    findings = run(study, grid, tmp_path / "run")
    [entry] = findings.history["prognosis"]
    assert sorted(entry["sites"]) == ["h0", "h1", "h2", "h4", "h5", "h6", "h7", "h8", "h9"]
    assert list(entry["excluded"]) == ["h3"] and entry["excluded"]["h3"]["code"] == "E502"
    names = [site for site in study.hospitals.train if site != "h3"]
    reference = plain(study, study.hospitals.train).model_copy(update={"name": "plain"})
    lost = kit.FaultyGrid(sites, before)
    expected = run(reference, lost, tmp_path / "plain")
    # 9 hospitals, weighed by a share of the largest; rounding of float32 on top.
    share = entry["together"]["weight"] / max(
        part["num_patients"] for part in expected.history["prognosis"][0]["sites"].values()
    )
    close(findings.prognosis, expected.prognosis, 9 * STEP / 2 / share + 5e-7)
    counted = expected.history["prognosis"][0]["sites"]
    assert sorted(counted) == names
    told = entry["together"]
    assert told["num_patients"] == sum(part["num_patients"] for part in counted.values())
    assert told["num_events"] == sum(part["num_events"] for part in counted.values())
    loss = np.average(
        [part["metrics"]["loss"] for part in counted.values()],
        weights=[part["weight"] for part in counted.values()],
    )
    assert told["metrics"]["loss"] == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("lost", [TRAIN, TELL])
def test_a_process_that_ends_after_its_work_is_a_drop_out_and_it_is_back_next_round(
    tmp_path: Path, lost: str
) -> None:
    sites = kit.hospitals(tmp_path / "sites", 4)
    study = kit.training_study(4, prognosis={"rounds": 3})
    grid = kit.FaultyGrid(sites, after=lambda s, k, n: (s, k, n) == ("h1", lost, 2))
    findings = run(study, grid, tmp_path / "run")
    took_part = [sorted(entry["sites"]) for entry in findings.history["prognosis"]]
    everybody = ["h0", "h1", "h2", "h3"]
    second = ["h0", "h2", "h3"] if lost == TRAIN else everybody
    assert took_part == [everybody, second, everybody]
    # Keys were agreed on once.
    assert grid.counts["h0", OPEN] == 1


def test_too_few_are_left_and_nothing_is_opened(tmp_path: Path) -> None:
    sites = kit.hospitals(tmp_path / "sites", 4)
    study = kit.training_study(4)
    gone = ("h0", "h2")
    grid = kit.FaultyGrid(sites, before=lambda s, k, _: s in gone and k == TRAIN)
    with pytest.raises(QuorumError, match="2 of 4 hospitals replied validly"):
        run(study, grid, tmp_path / "run")
    assert not [m for m in grid.requests if m.metadata.message_type == TELL]
    grid = kit.FaultyGrid(sites, before=lambda s, k, _: s in gone and k == TELL)
    with pytest.raises(QuorumError, match="2 hospitals told their shares, expected 3 or more"):
        run(study, grid, tmp_path / "again")


def test_the_whole_transcript_holds_no_update_count_or_loss(tmp_path: Path) -> None:
    sites = kit.hospitals(tmp_path / "sites", 4)
    grid = kit.FaultyGrid(sites)
    run(kit.training_study(4), grid, tmp_path / "run")
    replies = [m for m in grid.replies if m.metadata.message_type in (TRAIN, TELL, OPEN)]
    masked = [m for m in replies if m.metadata.message_type == TRAIN]
    assert len(masked) == 8
    for message in masked:
        document = json.loads(str(message.content["document"]["json"]))
        assert set(document) == {"kind", "deposits", "commitments"}
        assert list(message.content["arrays"]) == ["masked"]
    # A small network: all hospitals' words of all rounds together, byte by byte.
    words = np.concatenate([_words(message) for message in masked])
    assert chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue > 1e-9
    for message in replies:
        text = json.dumps(json.loads(str(message.content["document"]["json"])))
        assert "loss" not in text and "num_" not in text and "weight" not in text


def _size(messages: list[Message]) -> int:
    size = 0
    for message in messages:
        if message.metadata.message_type in (TRAIN, TELL, OPEN):
            records = message.content
            size += sum(len(str(record["json"])) for record in records.config_records.values())
            arrays = (
                array for record in records.array_records.values() for array in record.values()
            )
            size += sum(len(array.data) for array in arrays)
    return size


def test_masked_rounds_say_little_more_than_plain_ones(tmp_path: Path) -> None:
    """Everything from the first key on; `benchmarks/secure_sum.py` has half a million weights."""
    sites = kit.hospitals(tmp_path / "sites", 5, patients=20, required=False)
    network = {"name": "tabular", "options": {"hidden": [150, 150], "field_dropout": 0.0}}
    study = kit.training_study(5, prognosis={"network": network})
    secure, clear = kit.FaultyGrid(sites), kit.FaultyGrid(sites)
    run(study, secure, tmp_path / "run")
    run(plain(study, list(study.hospitals.train)), clear, tmp_path / "plain")
    ratio = _size(secure.requests + secure.replies) / _size(clear.requests + clear.replies)
    assert 1 < ratio < 1.15


def _words(message: Message) -> np.ndarray:
    data = message.content["arrays"]["masked"].data
    return np.frombuffer(data[-(len(data) - 128) :], np.uint32)


class Killed(BaseException):
    """Stands for the signal that ends the centre's process."""


def test_a_centre_that_is_killed_after_opening_a_sum_goes_on_with_the_same_hospitals(
    tmp_path: Path,
) -> None:
    sites = kit.hospitals(tmp_path / "sites", 4)
    study = kit.training_study(4)
    whole = run(study.model_copy(update={"name": "whole"}), kit.FaultyGrid(sites), tmp_path / "w")

    def kill(site: str, kind: str, number: int) -> bool:
        # All shares of round 2 are told and lost with the process; no checkpoint of it is written.
        if (site, kind, number) == ("h3", TELL, 2):
            raise Killed
        return False

    with pytest.raises(Killed):
        run(study, kit.FaultyGrid(sites, after=kill), tmp_path / "run")
    fewer = kit.FaultyGrid(sites, before=lambda s, k, _: (s, k) == ("h3", TRAIN))
    with pytest.raises(QuorumError, match="opened for 4 hospitals before and now is to be for 3"):
        run(study, fewer, tmp_path / "run")
    resumed = run(study, kit.FaultyGrid(sites), tmp_path / "run")
    # Training is the same to the bit, and so is what is rounded; masks are others.
    assert fingerprint(resumed.prognosis) == fingerprint(whole.prognosis)


def test_rules_that_work_on_the_mean_work_on_the_sum(tmp_path: Path) -> None:
    """A rule with a state of its own; FedAvg is in every other test, and FedProx the same here."""
    sites = kit.hospitals(tmp_path / "sites", 3, patients=30, required=False)
    section = {"strategy": {"name": "fedadam"}}
    study = kit.training_study(3, prognosis=section)
    secure = run(study, kit.FaultyGrid(sites), tmp_path / "run")
    reference = plain(study, list(study.hospitals.train))
    expected = run(
        reference.model_copy(update={"name": "p"}), kit.FaultyGrid(sites), tmp_path / "p"
    )
    # Adam divides by the size of the change, and so what was rounded by it.
    close(secure.prognosis, expected.prognosis, 1e-4)


def test_the_exact_cox_regression_travels_as_sums_alone(tmp_path: Path) -> None:
    sites = kit.hospitals(tmp_path / "sites", 5, required=False)
    names = [site.name for site in sites]
    tables = kit.kit
    study = tables.regression_study(
        names, secure_aggregation={"cover": "training"}, rounds={"join_s": 5}
    )
    grid = kit.FaultyGrid(sites)
    found = tables.run(study, grid, tmp_path / "secure").regression
    expected = tables.run(
        tables.regression_study(names), kit.FaultyGrid(sites), tmp_path / "plain"
    ).regression
    for mine, theirs in zip(found.rows, expected.rows, strict=True):
        assert mine.beta == pytest.approx(theirs.beta, abs=1e-9)
        assert mine.se == pytest.approx(theirs.se, abs=1e-9)
        assert mine.robust_se == pytest.approx(theirs.robust_se, abs=1e-9)
        assert mine.drift_p == pytest.approx(theirs.drift_p, abs=1e-6)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-8)
    for message in grid.replies:
        if message.metadata.message_type == "query.cox":
            assert set(message.content) == {"document", "arrays"}
            assert "sums" not in json.loads(str(message.content["document"]["json"]))


def test_a_hospital_that_leaves_in_the_middle_of_a_regression_is_left_out_of_it(
    tmp_path: Path,
) -> None:
    sites = kit.hospitals(tmp_path / "sites", 5, required=False)
    names = [site.name for site in sites]
    tables = kit.kit
    rounds = {"join_s": 5, "quorum": 0.7}
    study = tables.regression_study(names, secure_aggregation={"cover": "training"}, rounds=rounds)
    grid = kit.FaultyGrid(sites, before=lambda s, k, n: (s, k) == ("h2", "query.cox") and n > 2)
    found = tables.run(study, grid, tmp_path / "secure").regression
    rest = [name for name in names if name != "h2"]
    others = [site for site in sites if site.name != "h2"]
    expected = tables.run(
        tables.regression_study(rest), kit.FaultyGrid(others), tmp_path / "plain"
    ).regression
    assert found.hospitals == tuple(rest)
    for mine, theirs in zip(found.rows, expected.rows, strict=True):
        # The survey's scales are those of five hospitals; the coefficients are per unit.
        assert mine.beta == pytest.approx(theirs.beta, abs=1e-7)


def test_a_hospital_that_insists_sends_nothing_in_clear(tmp_path: Path) -> None:
    sites = kit.hospitals(tmp_path / "sites", 3)
    study = plain(kit.training_study(3), ["h0", "h1", "h2"])
    grid = kit.FaultyGrid(sites)
    with pytest.raises(QuorumError, match=r"h0: E710 h0 sends models and sums .* only masked"):
        run(study, grid, tmp_path / "run")
    assert all(m.has_error() for m in grid.replies if m.metadata.message_type == TRAIN)


def test_a_hospital_that_trusts_nobody_says_what_to_do(tmp_path: Path) -> None:
    sites = kit.hospitals(tmp_path / "sites", 4)
    content = yaml.safe_load((sites[0] / "site.yaml").read_text())
    del content["secure_aggregation"]
    (sites[0] / "site.yaml").write_text(yaml.safe_dump(content))
    study = kit.training_study(4, rounds={"join_s": 5, "quorum": 1.0})
    with pytest.raises(QuorumError, match="h0: E710 h0 was asked for a secure sum and trusts"):
        run(study, kit.FaultyGrid(sites), tmp_path / "run")
    # The other three do without it.
    most = kit.training_study(4, name="most")
    findings = run(most, kit.FaultyGrid(sites), tmp_path / "most")
    assert sorted(findings.history["prognosis"][-1]["sites"]) == ["h1", "h2", "h3"]


def test_noise_on_updates_is_reported_with_its_epsilon(tmp_path: Path) -> None:
    sites = kit.hospitals(tmp_path / "sites", 4, min_update_noise=0.5)
    noise = {"noise_multiplier": 0.8, "clip_norm": 0.3, "delta": 1e-3, "adaptive": {}}
    noise["weight_cap"] = 60
    section = {"cover": "training", "step_bits": 20, "updates": noise}
    study = kit.training_study(4, secure_aggregation=section)
    findings = run(study, kit.FaultyGrid(sites), tmp_path / "run")
    first, second = (entry["together"] for entry in findings.history["prognosis"])
    assert (first["clip_norm"], second["clip_norm"]) == (0.3, first["next_clip_norm"])
    assert second["next_clip_norm"] != second["clip_norm"]
    assert second["epsilon"] > first["epsilon"] > 1 and first["delta"] == 1e-3
    assert "num_patients" not in first and first["metrics"] == {}
    weak = kit.training_study(
        4, name="weak", secure_aggregation={"updates": noise | {"noise_multiplier": 0.4}}
    )
    with pytest.raises(QuorumError, match=r"asks for noise of 0\.5 clipping bounds"):
        run(weak, kit.FaultyGrid(sites), tmp_path / "weak")


def test_the_report_of_a_secure_study_draws_the_loss_of_all_together(tmp_path: Path) -> None:
    sites = kit.hospitals(tmp_path / "sites", 3, patients=40)
    study = kit.training_study(3)
    results = to_results(study, run(study, kit.FaultyGrid(sites), tmp_path / "run"))
    assert list(results.training["prognosis"].loss) == ["all hospitals together"]
    assert results.training["prognosis"].skipped == {}
    assert "all hospitals together" in render_report(results)
