"""What several tests of messages start from."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture(autouse=True)
def _task() -> None:
    """Let messages be made: Flower lets only the app of a task make one."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


@pytest.fixture
def some_records() -> Callable[..., RecordDict]:
    """Return what makes the records of a request: a document and an array of equal numbers."""

    def make(value: float = 1.0, size: int = 1000) -> RecordDict:
        arrays = ArrayRecord({"w": Array(np.full(size, value, np.float32))})
        return RecordDict({"document": ConfigRecord({"json": "{}"}), "arrays": arrays})

    return make
