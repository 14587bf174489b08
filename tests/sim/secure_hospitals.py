"""Hospitals that trust each other's keys, for the tests of secure sums through the real apps."""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from protocol.config import Study
from sim.introductions import introduce


def _load(name: str) -> ModuleType:
    place = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load("tabular_hospitals")


def hospitals(folder: Path, number: int, patients: int = 50, **settings: Any) -> list[Path]:
    """Write hospitals h0, h1, ... of unlike size who trust each other."""
    folder.mkdir(exist_ok=True)
    sites = [
        kit.write_hospital(folder, f"h{k}", kit.cohort(k, patients + 7 * k), min_cell=5)
        for k in range(number)
    ]
    introduce(sites, **({"required": True} | settings))
    return sites


def training_study(number: int, **changes: Any) -> Study:
    """Return a study of tables that trains for a few rounds, whose updates are summed securely."""
    section = {
        "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
        "covariates": ["age", "gene_12"],
        "num_intervals": 6,
        "rounds": 2,
        "training": {"learning_rate": 0.05, "epochs": 2},
    }
    return Study.model_validate(
        {
            "name": "tab",
            "seed": 3,
            "hospitals": {"train": [f"h{k}" for k in range(number)]},
            "stages": ["survey", "prognosis"],
            "validate": {"bootstrap": 20},
            "rounds": {"join_s": 5, "quorum": 0.6},
            "secure_aggregation": {"cover": "training"},
            **changes,
            "prognosis": section | changes.get("prognosis", {}),
        }
    )


Fault = Callable[[str, str, int], bool]
"""Whether a hospital fails at (name, message type, how many such it has had)."""


class FaultyGrid(kit.RecordingGrid):  # type: ignore[name-defined, misc]
    """A grid that keeps every reply whole, and some of whose hospitals fail as a test says.

    ``before`` is a failure before the hospital sees the message, ``after`` the loss of its reply.
    """

    def __init__(
        self,
        sites: Sequence[Path],
        before: Fault = lambda *_: False,
        after: Fault = lambda *_: False,
    ) -> None:
        super().__init__(sites, models=True)
        self.before, self.after = before, after
        self.counts: dict[tuple[str, str], int] = {}
        self.requests: list[Message] = []
        self.replies: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        kept = list(messages)
        self.requests += kept
        return list(super().push_messages(kept))

    def _execute(self, message: Message) -> Message:
        site = self.names[message.metadata.dst_node_id]
        kind = message.metadata.message_type
        number = self.counts[site, kind] = self.counts.get((site, kind), 0) + 1
        if self.before(site, kind, number):
            return self._lost(message)
        reply = super()._execute(message)
        lost = self.after(site, kind, number)
        return self._lost(message) if lost else reply

    def _lost(self, message: Message) -> Message:
        error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "the process ended")
        return Message(error, reply_to=message)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = list(super().pull_messages(message_ids))
        self.replies += replies
        return replies
