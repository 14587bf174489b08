"""The results file: what goes in comes out, and what is wrong is named."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from protocol.errors import PayloadError
from protocol.stats import PairCounts
from server.results import Results, load_results, save_results


def _example() -> ModuleType:
    place = Path(__file__).with_name("study_example.py")
    spec = importlib.util.spec_from_file_location("study_example", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def values() -> dict:
    return _example().example_results()


def test_file_loses_nothing_and_has_the_same_bytes(values: dict, tmp_path: Path) -> None:
    results = Results.of(values)
    save_results(results, tmp_path / "a.json")
    again = load_results(tmp_path / "a.json")
    save_results(again, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (
        again.arms["federated"].sites["north"].pairs
        == values["arms"]["federated"]["sites"]["north"]["pairs"]
    )


def test_a_plain_dict_is_as_good_as_objects(values: dict) -> None:
    plain = Results.of(values).model_dump()
    assert json.loads(json.dumps(plain)) == json.loads(json.dumps(Results.of(plain).model_dump()))


def test_wrong_results_are_named_in_one_sentence(values: dict) -> None:
    for change, sentence in (
        ({"patients": []}, "not valid at patients: Extra inputs"),
        ({"hospitals": []}, "not valid at hospitals"),
        ({"hospitals": [values["hospitals"][0]] * 2, "arms": {}}, "a hospital stands twice"),
        ({"arms": {"best": {"sites": {}}}}, "arm 'best' is none of federated, pooled"),
        ({"arms": {"pooled": {"sites": {"moon": {}}}}}, "names moon, which is not in 'hospitals'"),
    ):
        with pytest.raises(PayloadError, match=sentence):
            Results.of({**values, **change})


def test_wrong_sums_are_named(values: dict) -> None:
    bad = {**PairCounts.empty(60.0).to_dict(), "concordant": 3}
    arms = {"federated": {"sites": {"north": {"pairs": bad}}}}
    with pytest.raises(PayloadError, match=r"north\.pairs: .*more concordant"):
        Results.of({**values, "arms": arms})


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(PayloadError, match=r"results\.json is not a results file"):
        load_results(tmp_path / "results.json")
