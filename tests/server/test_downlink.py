"""Packed rounds between the real halves: one model at both ends, killed, resumed, rejoined."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client.downlink import whole_request
from client.uplink import packed_reply
from protocol.arrays import fingerprint, layout
from protocol.compression import DELTA, Codec, encoded_size
from protocol.errors import ConcorsError, ConfigError, MissingModelError, PayloadError
from protocol.payload import Base, Refusal, TrainRequest
from server.checkpoints import Checkpoints, hash_file
from server.downlink import broadcast
from strategies import build

INT8 = {"up": "int8", "down": "int8"}
COMPRESSIONS = [
    INT8,
    {"up": "bf16", "down": "bf16"},
    {"up": "top-k", "down": "top-k", "fraction": 0.2},
    {"up": "int8", "down": "none"},
    {"up": "none", "down": "int8"},
]


class Hospitals:
    """Hospitals with disks of their own, which note each model that they trained."""

    def __init__(self, folder: Path, well_behaved: Any) -> None:
        self.folder = folder
        self.well_behaved = well_behaved
        self.trained: dict[tuple[str, int], str] = {}
        self.came_packed: list[tuple[str, int]] = []
        self.away: set[tuple[str, int]] = set()

    def __call__(self, site: str, request: TrainRequest) -> Any:
        if (site, request.round_index) in self.away:
            return Refusal("E300", "Not today.")
        own = SimpleNamespace(name=site, workspace=lambda study: self.folder / site / study.name)
        if request.base is not None:
            self.came_packed.append((site, request.round_index))
        try:
            whole = whole_request(own, request)
        except ConcorsError as error:
            return Refusal.of(error)
        self.trained[site, request.round_index] = fingerprint(whole.arrays)
        return packed_reply(own, whole, self.well_behaved(site, whole)).to_records()

    def forget(self, site: str) -> None:
        for file in (self.folder / site).rglob("downlink/segment/*.safetensors"):
            file.unlink()


@pytest.fixture
def packed(consortium: Any, well_behaved: Any, tmp_path: Path) -> Any:
    """Make a consortium that packs, and its hospitals."""

    def make(compression: dict[str, Any], folder: str = "disks", **settings: Any) -> Any:
        hospitals = Hospitals(tmp_path / folder, well_behaved)
        three = consortium(behave=hospitals, settings={"compression": compression, **settings})
        return three, hospitals

    return make


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", ["fedavg", "fedadam"])
def test_all_train_one_model_to_the_bit_and_the_same_one_twice(
    packed: Any, compression: dict[str, Any], name: str
) -> None:
    strategy = build(name, {})
    three, hospitals = packed(compression)
    arrays, history = three.run(strategy=strategy)
    assert not any(entry["excluded"] for entry in history)
    for number in (1, 2, 3):
        assert len({hospitals.trained[site, number] for site in "ABC"}) == 1
    expected = [] if compression["down"] == "none" else [(s, n) for n in (2, 3) for s in "ABC"]
    assert sorted(hospitals.came_packed) == sorted(expected)
    again, others = packed(compression, "other disks")
    assert fingerprint(again.run(strategy=strategy)[0]) == fingerprint(arrays)
    assert others.trained == hospitals.trained


def test_without_compression_a_study_is_what_it_was_to_the_bit(
    packed: Any, consortium: Any
) -> None:
    three, hospitals = packed({"up": "none", "down": "none"})
    assert fingerprint(three.run()[0]) == fingerprint(consortium().run()[0])
    assert not hospitals.folder.exists()


def test_what_is_lost_is_made_good(packed: Any, consortium: Any) -> None:
    exact = consortium().run()[0]["conv.weight"]
    three, _ = packed(INT8)
    near = three.run()[0]["conv.weight"]
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("killed_after", [1, 2])
def test_killed_and_resumed_it_ends_with_the_same_bytes(
    packed: Any, tmp_path: Path, compression: dict[str, Any], killed_after: int
) -> None:
    class Killed(BaseException):
        pass

    def kill(entry: Any) -> None:
        if entry["round"] == killed_after:
            raise Killed

    whole, _ = packed(compression, "whole disks")
    expected, _ = whole.run(checkpoints=Checkpoints(tmp_path / "whole"))
    three, _ = packed(compression)
    part = Checkpoints(tmp_path / "part")
    with pytest.raises(Killed):
        three.run(checkpoints=part, on_round=kill)
    arrays, _ = three.run(checkpoints=part)
    assert fingerprint(arrays) == fingerprint(expected)
    last = "round-00003.safetensors"
    assert hash_file(tmp_path / "part" / last) == hash_file(tmp_path / "whole" / last)


def test_who_missed_a_round_or_lost_its_disk_gets_the_whole_model_in_the_same_round(
    packed: Any, tmp_path: Path
) -> None:
    three, hospitals = packed(INT8, quorum=0.6)
    # A misses round 2; B answers it, and loses its disk before round 4.
    hospitals.away = {("A", 2)}

    def on_round(entry: Any) -> None:
        if entry["round"] == 3:
            hospitals.forget("B")

    log = tmp_path / "audit.jsonl"
    _, history = three.run(num_rounds=4, on_round=on_round, audit=log)
    assert [sorted(entry["excluded"]) for entry in history] == [[], ["A"], [], []]
    # A was sent the whole model at once, B after it had said what it lacks.
    assert ("A", 3) not in hospitals.came_packed
    assert ("B", 4) in hospitals.came_packed
    assert log.read_text(encoding="utf-8").count("request.repeated") == 1
    for number in (3, 4):
        assert len({hospitals.trained[site, number] for site in "ABC"}) == 1


def test_a_round_counts_its_bytes(packed: Any, consortium: Any) -> None:
    _, plain = consortium().run()
    three, _ = packed(INT8)
    _, history = three.run()
    whole = plain[0]["bytes_up"]
    model = 4 * (4 * 9 + 4) + 8
    assert 3 * model < whole < 3 * (model + 700)
    assert all(entry["bytes_down"] > entry["bytes_up"] for entry in plain)
    # The first model goes whole; so small a one is mostly document and headers.
    assert history[1]["bytes_down"] < history[0]["bytes_down"]
    assert history[0]["bytes_up"] == history[2]["bytes_up"] < whole


def test_a_checkpoint_belongs_to_its_compression(packed: Any, tmp_path: Path) -> None:
    packed(INT8)[0].run(checkpoints=Checkpoints(tmp_path))
    with pytest.raises(ConfigError, match="belong to another study"):
        packed({"up": "bf16"})[0].run(checkpoints=Checkpoints(tmp_path))


# One hospital -----------------------------------------------------------------------------------


@pytest.fixture
def rounds(packed: Any, initial_arrays: Any, tmp_path: Path) -> Any:
    """A hospital that holds the model of round 1, and the request of round 2."""
    study = packed(INT8)[0].study()
    own = SimpleNamespace(name="A", workspace=lambda study: tmp_path / "A" / study.name)
    first = broadcast(TrainRequest(study, "segment", 1, {}, initial_arrays()), {}, Codec("int8"))
    held = whole_request(own, TrainRequest.from_records(first.whole))
    wanted = {n: (a * 2).astype(a.dtype) for n, a in held.arrays.items()}
    second = broadcast(TrainRequest(study, "segment", 2, {}, wanted), held.arrays, Codec("int8"))
    return own, second


def test_a_packed_model_is_the_centres_to_the_bit_also_when_asked_again(rounds: Any) -> None:
    own, second = rounds
    request = TrainRequest.from_records(second.packed)
    assert request.arrays[DELTA].size == encoded_size(layout(second.model), Codec("int8"))
    for _ in range(2):
        found = whole_request(own, request).arrays
        assert fingerprint(found) == fingerprint(second.model)
        assert list(found) == list(second.model)


@pytest.mark.parametrize("damage", ["absent", "cut", "another"])
def test_a_model_that_is_not_held_is_asked_for_by_a_code(rounds: Any, damage: str) -> None:
    own, second = rounds
    request = TrainRequest.from_records(second.packed)
    file = own.workspace(request.study) / "downlink" / "segment" / "round-00001.safetensors"
    whole = file.read_bytes()
    if damage == "absent":
        file.unlink()
    else:
        file.write_bytes(whole[:-3] if damage == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(MissingModelError, match="does not hold the model of round 1"):
        whole_request(own, request)
    assert MissingModelError.code == "E410"


def test_a_change_that_gives_another_model_is_refused(rounds: Any) -> None:
    own, second = rounds
    request = TrainRequest.from_records(second.packed)
    spoilt = request.arrays[DELTA].copy()
    # The last eight bytes are the counter, as it is.
    spoilt[-9] ^= 1
    wrong = TrainRequest(request.study, "segment", 2, {}, {DELTA: spoilt}, base=request.base)
    with pytest.raises(MissingModelError, match="does not give the centre's model here"):
        whole_request(own, wrong)
    with pytest.raises(PayloadError, match="array 'delta' has shape"):
        short = TrainRequest(
            request.study, "segment", 2, {}, {DELTA: spoilt[1:]}, base=request.base
        )
        whole_request(own, short)


def test_a_packed_model_in_a_study_that_packs_nothing_is_refused(rounds: Any, packed: Any) -> None:
    own, second = rounds
    plain = packed({"up": "int8"})[0].study()
    request = TrainRequest.from_records(second.packed)
    with pytest.raises(PayloadError, match="the study does not say so"):
        whole_request(own, TrainRequest(plain, "segment", 2, {}, request.arrays, base=request.base))


@pytest.mark.parametrize(
    "base",
    [
        Base(2, "0" * 64, "1" * 64),
        Base(0, "0" * 64, "1" * 64),
        Base(1, "0" * 63, "1" * 64),
        Base(1, "0" * 64, "G" * 64),
    ],
)
def test_a_base_that_cannot_be_is_refused(rounds: Any, base: Base) -> None:
    _, second = rounds
    request = TrainRequest.from_records(second.packed)
    records = TrainRequest(request.study, "segment", 2, {}, request.arrays, base=base).to_records()
    with pytest.raises(PayloadError, match="the model's base"):
        TrainRequest.from_records(records)
