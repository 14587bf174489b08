"""Rounds of SCAFFOLD: what is asked of whom, what is counted, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from protocol.arrays import Arrays, fingerprint
from protocol.control import control_change, moved, no_control
from protocol.payload import Refusal, TrainReply, TrainRequest
from protocol.records import to_array_record
from server.checkpoints import Checkpoints
from strategies import build
from strategies.scaffold import control_of

SCAFFOLD = build("scaffold", {})
SETTINGS = {"quorum": 0.3, "max_reply_mb": 1.0}


class Disks:
    """Hospitals that keep a variate for each round, and note what they were asked."""

    def __init__(self, well_behaved: Callable[[str, TrainRequest], TrainReply]) -> None:
        self.well_behaved = well_behaved
        self.kept: dict[tuple[str, int], Arrays] = {}
        self.asked: list[tuple[str, int, int]] = []
        self.lost: set[tuple[str, int]] = set()

    def __call__(self, site: str, request: TrainRequest) -> Any:
        assert request.control is not None
        number = request.round_index
        self.asked.append((site, number, request.control_round))
        own = no_control(request.arrays)
        if request.control_round:
            own = self.kept[site, request.control_round]
        reply = self.well_behaved(site, request)
        change = control_change(request.arrays, reply.arrays, request.control, 0.5, site)
        self.kept[site, number] = moved(own, change)
        if (site, number) in self.lost:
            return Refusal("E300", "The reply was lost.")
        return reply.to_records()

    def mean(self, weights: dict[str, float], rounds: dict[str, int]) -> np.ndarray:
        variates = [self.kept[site, rounds[site]]["conv.weight"] for site in weights]
        return np.average(variates, axis=0, weights=list(weights.values()))


def control(folder: Path) -> Arrays:
    found = Checkpoints(folder).latest()
    assert found is not None
    return control_of(found.state)


def test_the_centre_holds_the_mean_of_what_the_hospitals_hold(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    disks = Disks(well_behaved)
    # B is not counted in rounds 1 and 3, C not in round 2, though both trained and kept a variate.
    disks.lost = {("B", 1), ("C", 2), ("B", 3)}
    three = consortium(behave=disks, settings=SETTINGS)
    three.run(strategy=SCAFFOLD, num_rounds=4, checkpoints=Checkpoints(tmp_path))
    assert sorted(disks.asked) == [
        *[("A", number, number - 1) for number in (1, 2, 3, 4)],
        *[("B", 1, 0), ("B", 2, 0), ("B", 3, 2), ("B", 4, 2)],
        *[("C", 1, 0), ("C", 2, 1), ("C", 3, 1), ("C", 4, 3)],
    ]
    weights = {"A": 10.0, "B": 30.0, "C": 20.0}
    mean = disks.mean(weights, dict.fromkeys("ABC", 4))
    np.testing.assert_allclose(control(tmp_path)["conv.weight"], mean, atol=1e-5)


def test_a_hospital_that_is_new_enters_the_mean(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    disks = Disks(well_behaved)
    disks.lost = {("C", 1), ("C", 2), ("A", 3)}
    three = consortium(behave=disks, settings=SETTINGS)
    three.run(strategy=SCAFFOLD, num_rounds=2, checkpoints=Checkpoints(tmp_path))
    two = disks.mean({"A": 10.0, "B": 30.0}, {"A": 2, "B": 2})
    np.testing.assert_allclose(control(tmp_path)["conv.weight"], two, atol=1e-5)
    three.run(strategy=SCAFFOLD, num_rounds=3, checkpoints=Checkpoints(tmp_path))
    all_three = disks.mean({"A": 10.0, "B": 30.0, "C": 20.0}, {"A": 2, "B": 3, "C": 3})
    np.testing.assert_allclose(control(tmp_path)["conv.weight"], all_three, atol=1e-5)


def test_other_strategies_send_and_get_nothing_more(consortium: Any, well_behaved: Any) -> None:
    seen: list[TrainRequest] = []

    def behave(site: str, request: TrainRequest) -> RecordDict:
        seen.append(request)
        records = well_behaved(site, request).to_records()
        assert set(records) == {"document", "arrays"}
        assert "rate_sum" not in str(records["document"]["json"])
        return records

    consortium(behave=behave).run(num_rounds=1)
    assert all(request.control is None for request in seen)


def texted(old: str, new: str) -> Callable[[TrainReply], RecordDict]:
    def make(reply: TrainReply) -> RecordDict:
        records = reply.to_records()
        text = str(records["document"]["json"])
        assert old in text
        records["document"] = ConfigRecord({"json": text.replace(old, new)})
        return records

    return make


def with_control(reply: TrainReply) -> RecordDict:
    records = reply.to_records()
    records["control"] = to_array_record(reply.arrays)
    return records


def rated(rate_sum: float | None) -> Callable[[TrainReply], RecordDict]:
    return lambda reply: TrainReply(reply.arrays, 10, 0, rate_sum=rate_sum).to_records()


def poisoned(reply: TrainReply) -> RecordDict:
    reply.arrays["conv.weight"][0] = np.nan
    return reply.to_records()


HOSTILE: dict[str, tuple[Callable[[TrainReply], Any], str]] = {
    "no rate": (rated(None), "lacks rate_sum"),
    "rate 0": (rated(0.0), "rate_sum is not a number above 0"),
    "a rate below 0": (rated(-0.5), "rate_sum is not a number above 0"),
    "a NaN rate": (texted('"rate_sum":0.5', '"rate_sum":NaN'), "holds a NaN"),
    "an infinite rate": (texted('"rate_sum":0.5', '"rate_sum":1e999'), "an infinite number"),
    "a rate in words": (texted('"rate_sum":0.5', '"rate_sum":"0.5"'), "rate_sum is not a number"),
    "the rate True": (texted('"rate_sum":0.5', '"rate_sum":true'), "rate_sum is not a number"),
    "a rate next to nothing": (rated(1e-12), "The control variate of B: array 'conv.weight' holds"),
    "a variate of its own": (with_control, "has unknown records"),
    "a NaN in the model": (poisoned, "array 'conv.weight' holds a NaN"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_reply_is_left_out_and_named(
    consortium: Any, well_behaved: Any, kind: str
) -> None:
    make, sentence = HOSTILE[kind]

    def behave(site: str, request: TrainRequest) -> Any:
        reply = well_behaved(site, request)
        return make(reply) if (site, request.round_index) == ("B", 2) else reply.to_records()

    arrays, history = consortium(behave=behave, settings=SETTINGS).run(strategy=SCAFFOLD)
    refusal = history[1]["excluded"]["B"]
    assert refusal["code"] == "E400" and sentence in refusal["sentence"]

    def absent(site: str, request: TrainRequest) -> Any:
        if (site, request.round_index) == ("B", 2):
            return Refusal("E300", "Not today.")
        return well_behaved(site, request).to_records()

    without = consortium(behave=absent, settings=SETTINGS).run(strategy=SCAFFOLD)
    assert fingerprint(arrays) == fingerprint(without[0])


def test_a_rate_that_nobody_asked_for_is_refused(consortium: Any, well_behaved: Any) -> None:
    def behave(site: str, request: TrainRequest) -> RecordDict:
        reply = well_behaved(site, request)
        return rated(0.5 if site == "B" else None)(reply)

    _, history = consortium(behave=behave, settings=SETTINGS).run(num_rounds=1)
    assert list(history[0]["excluded"]) == ["B"]
    assert "has 1 unknown key" in history[0]["excluded"]["B"]["sentence"]


@pytest.mark.parametrize("late", [(5, 4, 3, 2, 1), (1, 7, 0, 7, 3)])
def test_the_order_of_arrival_is_irrelevant_to_the_bit(
    consortium: Any, late_grid: Any, hand_clock: Any, late: tuple[int, ...]
) -> None:
    sites = tuple("ABCDE")
    expected = fingerprint(consortium(sites).run(strategy=SCAFFOLD)[0])
    arrays, _ = consortium(sites).run(
        late_grid(sites, late), clock=hand_clock.clock(), strategy=SCAFFOLD
    )
    assert fingerprint(arrays) == expected


def test_one_hospital_that_ignores_the_correction_is_fedavg_to_the_bit(consortium: Any) -> None:
    one = consortium(("A",))
    assert fingerprint(one.run(strategy=SCAFFOLD)[0]) == fingerprint(one.run()[0])
