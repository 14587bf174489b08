"""Checkpoints: what is read is what was written, or the one before it, or an error."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from protocol.arrays import fingerprint
from protocol.errors import DataError
from server.checkpoints import Checkpoint, Checkpoints, hash_file


def checkpoint(round_index: int) -> Checkpoint:
    rng = np.random.default_rng(round_index)
    return Checkpoint(
        round_index,
        {
            "z.weight": rng.standard_normal((3, 2)).astype(np.float32),
            "a.count": np.array(round_index, dtype=np.int64),
            "empty": np.zeros((0, 2), dtype=np.float32),
        },
        {"m/z.weight": rng.standard_normal((3, 2))},
        [{"round": number} for number in range(1, round_index + 1)],
        "binding",
    )


def same(a: Checkpoint, b: Checkpoint) -> bool:
    return (
        (a.round_index, a.history, a.binding) == (b.round_index, b.history, b.binding)
        and fingerprint(a.arrays) == fingerprint(b.arrays)
        and fingerprint(a.state) == fingerprint(b.state)
    )


@pytest.fixture
def three(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "segment")
    for number in (1, 2, 3):
        checkpoints.save(checkpoint(number))
    return checkpoints


def test_the_newest_comes_back_as_it_was(three: Checkpoints) -> None:
    latest = three.latest()
    assert latest is not None
    assert same(latest, checkpoint(3))


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "new" / "segment").latest() is None


def test_two_rounds_and_the_final_model_stay(three: Checkpoints) -> None:
    three.save_final(checkpoint(3).arrays, {"stage": "segment"})
    assert sorted(path.name for path in three.directory.iterdir()) == [
        "final.json",
        "final.safetensors",
        "round-00002.json",
        "round-00002.safetensors",
        "round-00003.json",
        "round-00003.safetensors",
    ]


def test_rounds_are_counted_beyond_9(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for number in (9, 10, 11):
        checkpoints.save(checkpoint(number))
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.round_index == 11


def test_the_final_model_opens_under_its_own_names(three: Checkpoints) -> None:
    path = three.save_final(checkpoint(3).arrays, {"stage": "segment"})
    assert fingerprint(load_file(path)) == fingerprint(checkpoint(3).arrays)
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest == {"stage": "segment", "sha256": hash_file(path)}


def damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "flipped":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["truncated", "emptied", "flipped", "removed"])
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_damaged_checkpoint_is_left_out_for_the_one_before(
    three: Checkpoints, kind: str, suffix: str
) -> None:
    damage(three.directory / f"round-00003{suffix}", kind)
    latest = three.latest()
    assert latest is not None
    assert same(latest, checkpoint(2))


def test_a_manifest_with_other_keys_is_damage(three: Checkpoints) -> None:
    path = three.directory / "round-00003.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    latest = three.latest()
    assert latest is not None
    assert latest.round_index == 2


def test_when_all_are_damaged_the_study_does_not_start_over(three: Checkpoints) -> None:
    for number in (2, 3):
        damage(three.directory / f"round-0000{number}.safetensors", "truncated")
    with pytest.raises(DataError, match=r"^None of the 2 checkpoints in segment is intact; rest"):
        three.latest()


def test_what_a_crash_left_half_written_is_not_seen(three: Checkpoints) -> None:
    for name in (
        ".round-00004.safetensors.tmp",
        ".round-00004.json.tmp",
        "round-00004.safetensors",
    ):
        (three.directory / name).write_bytes(b"half")
    latest = three.latest()
    assert latest is not None
    assert latest.round_index == 3
    three.save(checkpoint(4))
    latest = three.latest()
    assert latest is not None
    assert same(latest, checkpoint(4))
