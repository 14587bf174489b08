"""A hospital's packed reply: the residual that is kept, taken up again, and let go of."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client.uplink import packed_reply
from protocol.arrays import Arrays, layout
from protocol.compression import DELTA, Codec, decode
from protocol.config import Study
from protocol.errors import PayloadError
from protocol.payload import TrainReply, TrainRequest
from shared_models.weights import load

X = {"w": np.zeros((2, 8), np.float32), "b": np.zeros(2, np.float32)}
INT8 = {"up": "int8"}


def study(compression: dict[str, Any], seed: int = 1) -> Study:
    rounds = {"compression": compression}
    return Study.model_validate(
        {"name": "s", "seed": seed, "hospitals": {"train": ["A"]}, "rounds": rounds}
    )


@pytest.fixture
def hospital(tmp_path: Path) -> Any:
    """Only where it lies is needed of a hospital."""

    def workspace(study: Study) -> Path:
        return tmp_path / study.name

    return SimpleNamespace(name="A", workspace=workspace)


def trained(number: int) -> Arrays:
    rng = np.random.default_rng(number)
    return {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in X.items()}


def play(hospital: Any, number: int, compression: dict[str, Any] = INT8, seed: int = 1) -> bytes:
    request = TrainRequest(study(compression, seed), "segment", number, {}, X)
    reply = packed_reply(hospital, request, TrainReply(trained(number), 10, 2, {"loss": 0.5}))
    assert (reply.num_patients, reply.num_events, reply.metrics) == (10, 2, {"loss": 0.5})
    assert list(reply.arrays) == [DELTA]
    return reply.arrays[DELTA].tobytes()


def kept(hospital: Any) -> list[str]:
    folder = hospital.workspace(study(INT8)) / "uplink" / "segment"
    return sorted(file.name for file in folder.iterdir())


def test_a_study_without_compression_sends_the_model_as_it_is(hospital: Any) -> None:
    reply = TrainReply(trained(1), 10, 2)
    request = TrainRequest(study({}), "segment", 1, {}, X)
    assert packed_reply(hospital, request, reply) is reply
    assert not hospital.workspace(study({})).exists()


def test_what_a_round_lost_is_sent_in_the_next(hospital: Any) -> None:
    top = {"up": "top-k", "fraction": 0.125}
    codec, total = Codec("top-k", 0.125), np.zeros((2, 8))
    for number in range(1, 9):
        payload = np.frombuffer(play(hospital, number, top), np.uint8)
        total += decode(payload, layout(X), codec, "A")["w"]
    wanted = sum(trained(number)["w"].astype(np.float64) for number in range(1, 9))
    folder = hospital.workspace(study(top)) / "uplink" / "segment"
    left, _ = load(folder / "round-00008.safetensors")
    # Two numbers of sixteen a round went, and what did not go is still there.
    np.testing.assert_allclose(total + left["w"], wanted, atol=1e-5)
    assert np.abs(left["w"]).max() > 0.5


def test_a_round_asked_again_gives_the_same_bytes(hospital: Any) -> None:
    first = [play(hospital, number) for number in (1, 2, 3)]
    assert play(hospital, 3) == first[2]
    # The centre went back by one checkpoint.
    assert [play(hospital, number) for number in (2, 3)] == first[1:]
    assert [play(hospital, number) for number in (1, 2, 3)] == first


def test_a_hospital_that_missed_rounds_goes_on_with_its_residual(hospital: Any) -> None:
    play(hospital, 1)
    fresh = play(hospital, 5)
    assert kept(hospital) == ["round-00001.safetensors", "round-00005.safetensors"]
    folder = hospital.workspace(study(INT8)) / "uplink" / "segment"
    for file in folder.iterdir():
        file.unlink()
    assert play(hospital, 5) != fresh


def test_no_more_is_kept_than_the_centre_can_ask_again(hospital: Any) -> None:
    for number in range(1, 7):
        play(hospital, number)
    assert kept(hospital) == [f"round-0000{k}.safetensors" for k in (4, 5, 6)]
    play(hospital, 1)
    assert kept(hospital) == ["round-00001.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "rubbish", "bit", "empty"])
def test_a_damaged_residual_is_let_go_of_with_a_line_in_the_log(
    hospital: Any, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    alone = play(hospital, 2)
    play(hospital, 1)
    file = hospital.workspace(study(INT8)) / "uplink" / "segment" / "round-00001.safetensors"
    whole = file.read_bytes()
    spoilt = {
        "cut": whole[:-1],
        "rubbish": b"x" * len(whole),
        "bit": whole[:-1] + bytes([whole[-1] ^ 1]),
        "empty": b"",
    }
    file.write_bytes(spoilt[damage])
    with caplog.at_level(logging.WARNING):
        assert play(hospital, 2) == alone
    assert "damaged or of another study; round 2 starts without it" in caplog.text


def test_the_residual_of_another_study_of_that_name_is_not_taken_up(hospital: Any) -> None:
    alone = play(hospital, 2, seed=7)
    play(hospital, 1, seed=1)
    assert play(hospital, 2, seed=7) == alone


def test_bf16_keeps_nothing(hospital: Any) -> None:
    play(hospital, 1, {"up": "bf16"})
    assert not hospital.workspace(study(INT8)).exists()


def test_an_update_that_diverged_is_not_packed(hospital: Any) -> None:
    request = TrainRequest(study(INT8), "segment", 1, {}, X)
    for wrong in (X | {"w": np.full((2, 8), np.nan, np.float32)}, {"w": X["w"]}):
        with pytest.raises(PayloadError, match="This hospital's update"):
            packed_reply(hospital, request, TrainReply(wrong, 10, 2))
    assert not hospital.workspace(study(INT8)).exists()
