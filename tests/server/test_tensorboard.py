"""What is written for TensorBoard, read back by TensorBoard's own reader."""

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from server.tensorboard import EventFiles, scalars

ALL = "all hospitals together"


def entry(number: int, stage: str = "segment", **more: Any) -> dict[str, Any]:
    part = {"num_patients": 5, "num_events": 1}
    sites = {
        "A": part | {"weight": 5.0, "metrics": {"loss": 1.0 / number}},
        "B": part | {"weight": 3.0, "metrics": {"loss": 0.25, "dice": 0.5}},
    }
    entry = {"stage": stage, "round": number, "seconds": 2.0 * number, "update_norm": 0.125}
    return entry | {"sites": sites, "excluded": {"C": {}}, "fingerprint": "f"} | more


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def write(run_dir: Path, *entries: dict[str, Any]) -> None:
    files = EventFiles(run_dir, entries[0]["stage"])
    for each in entries:
        files.add(each)
    files.close()


def test_every_hospital_has_a_folder_with_its_metrics_by_stage_and_round(tmp_path: Path) -> None:
    write(tmp_path, entry(1), entry(2))
    write(tmp_path, entry(1, "prognosis", bytes_down=2**21, bytes_up=2**20))
    folders = tmp_path / "tensorboard"
    assert {path.name for path in folders.iterdir()} == {"A", "B", ALL}
    assert read(folders / "A") == {
        "segment/loss": [(1, 1.0), (2, 0.5)],
        "segment/weight": [(1, 5.0), (2, 5.0)],
        "prognosis/loss": [(1, 1.0)],
        "prognosis/weight": [(1, 5.0)],
    }
    assert read(folders / "B")["segment/dice"] == [(1, 0.5), (2, 0.5)]
    common = read(folders / ALL)
    assert common["segment/seconds"] == [(1, 2.0), (2, 4.0)]
    assert common["segment/update_norm"] == [(1, 0.125), (2, 0.125)]
    assert common["segment/counted"] == [(1, 2.0), (2, 2.0)]
    assert common["segment/left_out"] == [(1, 1.0), (2, 1.0)]
    assert common["prognosis/mb_down"] == [(1, 2.0)] and common["prognosis/mb_up"] == [(1, 1.0)]


def test_a_round_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    files = EventFiles(tmp_path, "segment")
    files.add(entry(1))
    assert read(tmp_path / "tensorboard" / "A")["segment/loss"] == [(1, 1.0)]
    files.close()


def test_a_resumed_stage_has_every_round_once_and_leaves_other_stages_alone(
    tmp_path: Path,
) -> None:
    write(tmp_path, entry(1, "sort"))
    write(tmp_path, entry(1), entry(2))
    write(tmp_path, entry(1), entry(2), entry(3))
    found = read(tmp_path / "tensorboard" / "A")
    assert [step for step, _ in found["segment/loss"]] == [1, 2, 3]
    assert [step for step, _ in found["sort/loss"]] == [1]


def test_of_a_secure_sum_only_what_is_known_of_all_is_written() -> None:
    together = {"weight": 9.0, "metrics": {"loss": 0.7}, "epsilon": 2.5, "delta": 1e-5}
    found = scalars(entry(1, together=together))
    assert set(found) == {ALL}
    assert found[ALL]["segment/loss"] == 0.7 and found[ALL]["segment/epsilon"] == 2.5


def test_a_training_run_writes_them(
    consortium: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = EventFiles(tmp_path, "segment")
    _, history = consortium().run(on_round=files.add)
    files.close()
    found = read(tmp_path / "tensorboard" / "B")["segment/loss"]
    assert found == [(e["round"], e["sites"]["B"]["metrics"]["loss"]) for e in history]
    assert capsys.readouterr().out == ""
