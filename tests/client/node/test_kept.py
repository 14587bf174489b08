import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.node.kept import KeptReplies, request_id
from protocol.parts import parts_of

STUDY = "a" * 64


def _records(value: float = 1.0, size: int = 1000) -> RecordDict:
    arrays = ArrayRecord({"w": Array(np.full(size, value, np.float32))})
    return RecordDict({"document": ConfigRecord({"json": "{}"}), "arrays": arrays})


@pytest.fixture(autouse=True)
def _task() -> None:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


def _keep(kept: KeptReplies, request: str, records: RecordDict, **bounds) -> bool:
    return kept.keep(STUDY, request, records, **{"newest": 3, "max_mb": 1.0} | bounds)


def test_request_is_known_by_type_and_content_and_not_by_run_or_time() -> None:
    def message(kind: str = "train.segment", value: float = 1.0) -> Message:
        return Message(_records(value), 7, kind)

    same = request_id(message())
    TaskIdentity.run_id = 2
    assert request_id(message()) == same
    others = [message("train.sort"), message(value=np.nextafter(np.float32(1), np.float32(2)))]
    assert same not in {request_id(other) for other in others}
    assert request_id(message(), "other files") != same


def test_kept_reply_is_the_same_to_the_byte(tmp_path: Path) -> None:
    kept = KeptReplies(tmp_path)
    assert kept.find(STUDY, "1" * 64) is None
    assert _keep(kept, "1" * 64, _records())
    found = kept.find(STUDY, "1" * 64)
    assert found is not None
    assert found.object_id == _records().object_id
    assert list(parts_of(found)) == list(parts_of(_records()))
    assert kept.find("b" * 64, "1" * 64) is None


def test_newest_of_a_study_and_the_bytes_of_all_are_bounds(tmp_path: Path) -> None:
    kept = KeptReplies(tmp_path)
    for number in range(5):
        _keep(kept, f"{number}" * 64, _records(number))
        os.utime(tmp_path / STUDY / (f"{number}" * 64), (number + 1, number + 1))
    there = [n for n in range(5) if kept.find(STUDY, f"{n}" * 64) is not None]
    assert there == [2, 3, 4]
    size = (tmp_path / STUDY / ("4" * 64)).stat().st_size / 1e6
    _keep(kept, "5" * 64, _records(5), max_mb=2.5 * size)
    assert len(list(tmp_path.glob("*/*"))) == 2
    assert not _keep(kept, "6" * 64, _records(6), max_mb=0.5 * size)
    assert not _keep(kept, "7" * 64, _records(7), newest=0)


@pytest.mark.parametrize("at", [0, 40, 63, 64, 70, 200, -1])
def test_altered_or_torn_reply_is_not_used(tmp_path: Path, at: int) -> None:
    kept = KeptReplies(tmp_path)
    _keep(kept, "1" * 64, _records())
    path = tmp_path / STUDY / ("1" * 64)
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[at] ^= 1
    for harmed in (bytes(altered), whole[:at]):
        path.write_bytes(harmed)
        assert kept.find(STUDY, "1" * 64) is None
        assert not path.exists()


def test_full_disk_loses_the_keeping_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("client.node.kept.os.fsync", full)
    with caplog.at_level(logging.WARNING, "concors.node"):
        assert not _keep(KeptReplies(tmp_path), "1" * 64, _records())
    assert "could not be kept (No space left on device); it is sent all the same" in caplog.text
    assert list(tmp_path.glob("*/*")) == []
