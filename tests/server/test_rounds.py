"""Rounds: the same bytes whatever arrives when, and no reply that can harm the model."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from protocol import audit
from protocol.arrays import fingerprint
from protocol.errors import ConfigError, PayloadError, QuorumError
from protocol.payload import Answer, Refusal, TrainReply, TrainRequest
from protocol.records import to_array_record
from server.checkpoints import Checkpoints, hash_file
from server.rounds import run_rounds
from strategies import build

STRATEGIES = [
    ("fedavg", {}),
    ("fedavgm", {"momentum": 0.5}),
    ("fedadam", {}),
    ("fedyogi", {}),
    ("scaffold", {"learning_rate": 0.8}),
]


# Laws -------------------------------------------------------------------------------------------


def test_one_hospital_is_its_own_training_to_the_bit(
    consortium: Any, well_behaved: Any, initial_arrays: Any
) -> None:
    one = consortium(("A",))
    arrays, _ = one.run()
    alone = initial_arrays()
    for number in (1, 2, 3):
        alone = well_behaved("A", TrainRequest(one.study(), "segment", number, {}, alone)).arrays
    assert fingerprint(arrays) == fingerprint(alone)


def test_hospitals_that_reply_alike_are_one_hospital_to_the_bit(
    consortium: Any, well_behaved: Any
) -> None:
    def alike(site: str, request: TrainRequest) -> RecordDict:
        reply = well_behaved("A", request)
        count = {"A": 10, "B": 3, "C": 17}[site]
        return TrainReply(reply.arrays, count, 1).to_records()

    three = consortium(behave=alike)
    one, _ = three.run(nodes={"A": 2})
    assert fingerprint(three.run()[0]) == fingerprint(one)


def test_the_same_study_gives_the_same_bytes_twice(consortium: Any) -> None:
    first, second = consortium().run(), consortium().run()
    assert fingerprint(first[0]) == fingerprint(second[0])
    assert first[1][-1]["fingerprint"] == second[1][-1]["fingerprint"] == fingerprint(first[0])


@pytest.mark.parametrize("workers", [2, 5, 8])
def test_the_number_of_workers_is_irrelevant_to_the_bit(consortium: Any, workers: int) -> None:
    sites = tuple("ABCDE")
    expected = fingerprint(consortium(sites).run()[0])
    assert fingerprint(consortium(sites, workers=workers).run()[0]) == expected


@pytest.mark.parametrize(
    "late", [(0, 0, 0, 0, 0), (5, 4, 3, 2, 1), (1, 7, 0, 7, 3), (30, 0, 59.9, 0, 0)]
)
def test_the_order_of_arrival_is_irrelevant_to_the_bit(
    consortium: Any, late_grid: Any, hand_clock: Any, late: tuple[int, ...]
) -> None:
    sites = tuple("ABCDE")
    expected = fingerprint(consortium(sites).run()[0])
    arrays, _ = consortium(sites).run(late_grid(sites, late), clock=hand_clock.clock())
    assert fingerprint(arrays) == expected


def test_the_order_in_which_hospitals_are_named_is_irrelevant_to_the_bit(consortium: Any) -> None:
    expected = fingerprint(consortium(("A", "B", "C")).run()[0])
    turned = consortium(("A", "B", "C")).run(nodes={"C": 4, "A": 2, "B": 3})[0]
    assert fingerprint(turned) == expected


@pytest.mark.parametrize(("name", "options"), STRATEGIES)
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_killed_and_resumed_it_ends_with_the_same_bytes(
    consortium: Any,
    tmp_path: Path,
    name: str,
    options: dict[str, float],
    killed_after: int,
) -> None:
    class Killed(BaseException):
        pass

    def kill(entry: Any) -> None:
        if entry["round"] == killed_after:
            raise Killed

    strategy = build(name, options)
    whole, history = consortium().run(
        strategy=strategy, checkpoints=Checkpoints(tmp_path / "whole")
    )
    part = tmp_path / "part"
    with pytest.raises(Killed):
        consortium().run(strategy=strategy, checkpoints=Checkpoints(part), on_round=kill)
    seen: list[Any] = []
    resumed, history_resumed = consortium().run(
        strategy=strategy, checkpoints=Checkpoints(part), on_round=seen.append
    )
    assert fingerprint(resumed) == fingerprint(whole)
    assert list(resumed) == list(whole)
    for file in ("final.safetensors", "final.json", "round-00003.safetensors"):
        assert hash_file(part / file) == hash_file(tmp_path / "whole" / file)
    assert [entry["round"] for entry in seen] == [1, 2, 3]
    untimed = [[e | {"seconds": 0} for e in h] for h in (history, history_resumed, seen)]
    assert untimed[0] == untimed[1] == untimed[2]


PROCESS = """
import os, signal, sys
sys.path[:0] = [{root!r}, {here!r}]
from pathlib import Path
from conftest import Consortium
from server.checkpoints import Checkpoints

def kill(entry):
    if entry["round"] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

Consortium().run(checkpoints=Checkpoints(Path(sys.argv[1])), on_round=kill)
"""


@pytest.mark.slow
def test_a_process_killed_by_the_system_is_resumed(consortium: Any, tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent
    script = PROCESS.format(root=str(here.parents[1]), here=str(here))
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), "2"], env=environment, check=False
    )
    assert done.returncode == -9
    arrays, _ = consortium().run(checkpoints=Checkpoints(tmp_path))
    assert fingerprint(arrays) == fingerprint(consortium().run()[0])


# Weights ----------------------------------------------------------------------------------------


def test_a_round_is_the_mean_weighted_by_patients_in_the_initial_dtypes(
    consortium: Any, well_behaved: Any, initial_arrays: Any
) -> None:
    three = consortium()
    arrays, history = three.run(num_rounds=1)
    request = TrainRequest(three.study(), "segment", 1, {}, initial_arrays())
    replies = [well_behaved(site, request).arrays["conv.weight"] for site in "ABC"]
    expected = np.average(np.stack(replies).astype(np.float64), axis=0, weights=[10, 30, 20])
    np.testing.assert_allclose(arrays["conv.weight"], expected, atol=1e-6)
    assert {name: array.dtype for name, array in arrays.items()} == {
        name: array.dtype for name, array in initial_arrays().items()
    }
    assert arrays["steps"] == 4
    assert history[0]["sites"]["B"] == {
        "num_patients": 30,
        "num_events": 6,
        "weight": 30.0,
        "metrics": {"loss": 0.5},
    }
    change = np.sqrt(
        sum(
            np.square(arrays[name].astype(float) - old).sum()
            for name, old in initial_arrays().items()
        )
    )
    assert history[0]["update_norm"] == pytest.approx(change, rel=1e-6)


def test_a_hospital_without_events_counts_for_the_quorum_and_weighs_nothing(
    consortium: Any, well_behaved: Any
) -> None:
    def behave(site: str, request: TrainRequest) -> RecordDict:
        events = {"A": 2, "B": 0, "C": 1}[site]
        return TrainReply(well_behaved(site, request).arrays, 10, events).to_records()

    three = consortium(behave=behave)
    arrays, history = three.run(weight_by="events", num_rounds=1)
    without, _ = three.run(weight_by="events", num_rounds=1, nodes={"A": 2, "C": 4})
    assert fingerprint(arrays) == fingerprint(without)
    assert history[0]["sites"]["B"]["weight"] == 0.0
    assert history[0]["excluded"] == {}


def test_no_events_anywhere_is_an_error_that_says_what_to_do(
    consortium: Any, well_behaved: Any
) -> None:
    def behave(site: str, request: TrainRequest) -> RecordDict:
        return TrainReply(well_behaved(site, request).arrays, 10, 0).to_records()

    with pytest.raises(QuorumError, match=r"no hospital has an event.*weight_by to patients\.$"):
        consortium(behave=behave).run(weight_by="events")


def test_the_centre_holds_four_models_at_most(consortium: Any, tmp_path: Path) -> None:
    num_arrays, size = 16, 2**18
    model_bytes = num_arrays * size * 4

    def piecewise(site: str, request: TrainRequest) -> RecordDict:
        # The hospital runs in this process, so its own memory must not show: one array at a time.
        records = TrainReply({}, 10, 1).to_records()
        for name, array in request.arrays.items():
            records["arrays"].update(to_array_record({name: array + np.float32(1)}))
        return records

    def model() -> dict[str, np.ndarray]:
        return {f"w{i}": np.ones(size, dtype=np.float32) for i in range(num_arrays)}

    five = consortium(tuple("ABCDE"), behave=piecewise)
    nodes = five.join()
    five.run(arrays=model(), num_rounds=1)
    tracemalloc.start()
    try:
        arrays, _ = run_rounds(
            five.grid(),
            nodes,
            stage="segment",
            study=five.study(),
            agreed={},
            # Not kept by the caller, so that it can be freed after the first round.
            arrays=model(),
            strategy=build("fedavg", {}),
            num_rounds=3,
            weight_by="patients",
            max_patients=dict.fromkeys("ABCDE", 10),
            checkpoints=Checkpoints(tmp_path),
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert arrays["w0"][0] == 4.0
    # On top: the array being trained or encoded, the block being folded, the messages themselves.
    assert peak < (4 + 4 / num_arrays) * model_bytes


# Hostile and broken replies ---------------------------------------------------------------------


def changed(**change: np.ndarray | None) -> Callable[[TrainReply], RecordDict]:
    def make(reply: TrainReply) -> RecordDict:
        arrays = {name.replace(".", "_"): array for name, array in reply.arrays.items()} | change
        names = {name.replace(".", "_"): name for name in reply.arrays}
        kept = {names.get(k, k): v for k, v in arrays.items() if v is not None}
        return TrainReply(kept, reply.num_patients, reply.num_events).to_records()

    return make


def counted(num_patients: Any, num_events: Any = 0) -> Callable[[TrainReply], RecordDict]:
    return lambda reply: TrainReply(reply.arrays, num_patients, num_events).to_records()


def poisoned(value: float) -> Callable[[TrainReply], RecordDict]:
    def make(reply: TrainReply) -> RecordDict:
        reply.arrays["conv.weight"][1, 0, 2, 2] = value
        return reply.to_records()

    return make


def lying_header(reply: TrainReply) -> RecordDict:
    records = reply.to_records()
    data = records["arrays"]["conv.bias"].data
    lie = data.replace(b"(4,)", b"(200000000000,)", 1)
    records["arrays"]["conv.bias"] = Array("float32", (200_000_000_000,), "numpy.ndarray", lie)
    return records


def nan_metric(reply: TrainReply) -> RecordDict:
    records = TrainReply(reply.arrays, 10, 0, {"loss": 1.5}).to_records()
    text = str(records["document"]["json"]).replace("1.5", "NaN")
    records["document"] = ConfigRecord({"json": text})
    return records


def raises(reply: TrainReply) -> RecordDict:
    raise RuntimeError("/data/DOE^JANE/123456.dcm")


W, B = np.zeros((4, 1, 3, 3), np.float32), np.zeros(4, np.float32)

HOSTILE: dict[str, tuple[Callable[[TrainReply], Any], str, str]] = {
    "a NaN": (poisoned(np.nan), "E400", "array 'conv.weight' holds a NaN"),
    "an infinity": (poisoned(np.inf), "E400", "holds an infinite value"),
    "a negative infinity": (poisoned(-np.inf), "E400", "holds an infinite value"),
    "an absurd number": (poisoned(3e38), "E400", "holds a value beyond 1e+09"),
    "another shape": (changed(conv_weight=W[:2]), "E400", "has shape (2, 1, 3, 3), expected (4,"),
    "the shape (1,)": (changed(conv_bias=B[:1]), "E400", "has shape (1,), expected (4,)"),
    "a scalar": (changed(conv_bias=np.float32(0).reshape(())), "E400", "has shape ()"),
    "a missing key": (changed(conv_bias=None), "E400", "array 'conv.bias' is missing"),
    "an extra key": (changed(more=B), "E400", "array 'more' is not part of the model"),
    "another model": (changed(conv_weight=None, fc=W), "E400", "'conv.weight' is missing"),
    "no arrays at all": (lambda r: TrainReply({}, 10, 0).to_records(), "E400", "is missing"),
    "another dtype": (changed(conv_bias=B.astype(float)), "E400", "float64, expected float32"),
    "a counter as a float": (changed(steps=np.float32(1).reshape(())), "E400", "is float32"),
    "no patients": (counted(0), "E400", "claims 0 patients, expected 1 to the 30"),
    "-10 patients": (counted(-10), "E400", "num_patients is not a count"),
    "a trillion patients": (counted(10**12), "E400", "claims 1000000000000 patients"),
    "one patient too many": (counted(31), "E400", "claims 31 patients, expected 1 to the 30"),
    "half a patient": (counted(1.5), "E400", "num_patients is not a count"),
    "True patients": (counted(True), "E400", "num_patients is not a count"),
    "more events than patients": (counted(10, 11), "E400", "11 events in 10 patients"),
    "-1 events": (counted(10, -1), "E400", "num_events is not a count"),
    "too many bytes": (changed(more=np.zeros(2**19, np.float32)), "E400", "exceed the limit"),
    "a header of 800 GB": (lying_header, "E400", "does not hold the bytes of float32"),
    "a NaN metric": (nan_metric, "E400", "holds a NaN"),
    "an empty reply": (lambda r: RecordDict(), "E400", "has no document"),
    "an answer": (lambda r: Answer({"x": 1}).to_records(), "E400", "lacks metrics"),
    "stray records": (
        lambda r: RecordDict({"document": ConfigRecord({"json": "{}"}), "x": ArrayRecord()}),
        "E400",
        "has unknown records",
    ),
    "a refusal": (lambda r: Refusal("E300", "The loss is not finite."), "E300", "not finite"),
    "an exception": (raises, "E502", "its app failed with an exception"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["fedavg", "fedyogi"])
def test_a_hostile_reply_is_left_out_and_named(
    consortium: Any, well_behaved: Any, kind: str, name: str
) -> None:
    make, code, sentence = HOSTILE[kind]

    def behave(site: str, request: TrainRequest) -> Any:
        reply = well_behaved(site, request)
        return make(reply) if site == "B" and request.round_index == 2 else reply.to_records()

    three = consortium(behave=behave, settings={"quorum": 0.6, "max_reply_mb": 1.0})
    strategy = build(name, {})
    arrays, history = three.run(strategy=strategy)
    assert [sorted(entry["sites"]) for entry in history] == [["A", "B", "C"], ["A", "C"], [*"ABC"]]
    assert [sorted(entry["excluded"]) for entry in history] == [[], ["B"], []]
    refusal = history[1]["excluded"]["B"]
    assert refusal["code"] == code
    assert sentence in refusal["sentence"]
    assert "DOE" not in str(history)

    def absent(site: str, request: TrainRequest) -> Any:
        if site == "B" and request.round_index == 2:
            return Refusal("E300", "Not today.")
        return well_behaved(site, request).to_records()

    without = consortium(behave=absent, settings={"quorum": 0.6, "max_reply_mb": 1.0})
    assert fingerprint(arrays) == fingerprint(without.run(strategy=strategy)[0])


@pytest.mark.parametrize("silent", [0, 1, 2])
def test_a_silent_hospital_is_waited_for_until_the_deadline_and_no_longer(
    consortium: Any, late_grid: Any, hand_clock: Any, silent: int
) -> None:
    sites = ("A", "B", "C")
    late = [np.inf if index == silent else 3.0 for index in range(3)]
    three = consortium(settings={"quorum": 0.5, "deadline_s": 100})
    arrays, history = three.run(late_grid(sites, late), clock=hand_clock.clock(), num_rounds=1)
    assert hand_clock.seconds == 100
    refusal = history[0]["excluded"][sites[silent]]
    assert refusal["code"] == "E501"
    assert refusal["sentence"].startswith("No reply within 100 s; see whether the hospital's node")
    others = {site: 2 + index for index, site in enumerate(sites) if index != silent}
    assert fingerprint(arrays) == fingerprint(three.run(num_rounds=1, nodes=others)[0])


def test_too_few_valid_replies_stop_the_run_and_lose_nothing(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    broken = True

    def behave(site: str, request: TrainRequest) -> Any:
        if broken and site == "B" and request.round_index == 2:
            return Refusal("E300", "The loss of batch 3 is not finite.")
        return well_behaved(site, request).to_records()

    with pytest.raises(
        QuorumError,
        match=r"^Round 2 of segment: 2 of 3 hospitals replied validly, expected a share of 1 "
        r"\(B: E300 The loss of batch 3 is not finite\.\); mend this and resume\.$",
    ):
        consortium(behave=behave).run(checkpoints=Checkpoints(tmp_path))
    broken = False
    # A longer deadline is not another study.
    again = consortium(behave=behave, settings={"deadline_s": 600})
    arrays, _ = again.run(checkpoints=Checkpoints(tmp_path))
    assert fingerprint(arrays) == fingerprint(consortium().run()[0])


# The door ---------------------------------------------------------------------------------------


def test_checkpoints_of_another_study_are_not_continued(consortium: Any, tmp_path: Path) -> None:
    consortium().run(checkpoints=Checkpoints(tmp_path), num_rounds=1)
    for change in (
        {"agreed": {}},
        {"strategy": build("fedavgm", {})},
        {"weight_by": "events"},
        {"study": consortium().study().model_copy(update={"seed": 6})},
    ):
        with pytest.raises(ConfigError, match="belong to another study, strategy or survey"):
            consortium().run(checkpoints=Checkpoints(tmp_path), **change)
    with pytest.raises(PayloadError, match="array 'fc' is missing"):
        arrays = {"fc": np.zeros(1, dtype=np.float32)}
        consortium().run(checkpoints=Checkpoints(tmp_path), arrays=arrays)


def test_a_hospital_the_survey_did_not_count_is_refused(consortium: Any) -> None:
    with pytest.raises(ConfigError, match=r"^B has no patient count from the survey; run the surv"):
        consortium().run(max_patients={"A": 1, "C": 1})


def test_every_message_stands_in_the_audit_log(
    consortium: Any, well_behaved: Any, tmp_path: Path
) -> None:
    def behave(site: str, request: TrainRequest) -> Any:
        return raises(None) if site == "B" else well_behaved(site, request).to_records()

    path = tmp_path / "audit.jsonl"
    three = consortium(behave=behave, settings={"quorum": 0.5})
    three.run(num_rounds=2, audit=path)
    assert audit.verify(path).num_lines == 2 * (1 + 3)
    text = path.read_text()
    assert text.count("reply.accepted") == 4
    assert text.count("reply.refused") == 2
    assert "DOE" not in text
