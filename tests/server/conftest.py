"""A small consortium whose hospitals are real ClientApps and behave as a test says."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from protocol.arrays import Arrays
from protocol.config import Study
from protocol.payload import Answer, Refusal, TrainReply, TrainRequest
from protocol.seeds import generator
from server.asking import Clock
from server.hospitals import join
from server.rounds import run_rounds
from sim.grid import LocalGrid
from strategies import build

PATIENTS = {"A": 10, "B": 30, "C": 20, "D": 25, "E": 40}
Behaviour = Callable[[str, TrainRequest], RecordDict | Refusal]


def initial() -> Arrays:
    rng = np.random.default_rng(7)
    return {
        "conv.weight": rng.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "conv.bias": rng.standard_normal(4).astype(np.float32),
        "steps": np.array(3, dtype=np.int64),
    }


def trained(site: str, request: TrainRequest) -> TrainReply:
    """Return what a well-behaved hospital replies: a function of site, round and model."""
    rng = generator(request.study.seed, "test", round_index=request.round_index, site=site)
    arrays = {
        name: (array * 0.9 + rng.standard_normal(array.shape)).astype(array.dtype)
        for name, array in request.arrays.items()
    }
    arrays["steps"] = request.arrays["steps"] + 1
    rate_sum = None if request.control is None else 0.5
    return TrainReply(arrays, PATIENTS[site], PATIENTS[site] // 5, {"loss": 0.5}, rate_sum)


def well(site: str, request: TrainRequest) -> RecordDict:
    return trained(site, request).to_records()


def client_app(behave: Behaviour) -> ClientApp:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        answer = Answer({"site": context.node_config["site"], "version": "1"})
        return Message(answer.to_records(), reply_to=message)

    @app.train("segment")
    def train(message: Message, context: Context) -> Message:
        request = TrainRequest.from_records(message.content)
        outcome = behave(str(context.node_config["site"]), request)
        if isinstance(outcome, Refusal):
            return Message(outcome.to_error(), reply_to=message)
        return Message(outcome, reply_to=message)

    return app


@dataclass
class HandClock:
    """Time that passes only when someone sleeps."""

    seconds: float = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self._sleep)

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds


class LateGrid(LocalGrid):
    """A grid whose hospitals all work at once and finish when the test says.

    ``late_s[site index]`` is how long after the request a reply is there, s; infinity is never.
    """

    def __init__(
        self, app: ClientApp, sites: Sequence[str], late_s: Sequence[float], clock: HandClock
    ) -> None:
        super().__init__(app, [{"site": site} for site in sites])
        self._late_s = dict(zip(self.get_node_ids(), late_s, strict=True))
        self._clock = clock
        self._ready: dict[str, tuple[float, Message]] = {}

    def push_messages(self, messages: Any) -> list[str]:
        messages = list(messages)
        ids = super().push_messages(messages)
        late = [self._late_s[m.metadata.dst_node_id] for m in messages]
        for index in sorted(range(len(ids)), key=lambda i: late[i]):
            [reply] = super().pull_messages([ids[index]])
            self._ready[ids[index]] = (self._clock.seconds + late[index], reply)
        return ids

    def pull_messages(self, message_ids: Any) -> list[Message]:
        ready = [i for i in message_ids if i in self._ready]
        return [self._ready.pop(i)[1] for i in ready if self._ready[i][0] <= self._clock.seconds]


@dataclass
class Consortium:
    """Hospitals A, B, C (or as many as asked) and one training run over them."""

    sites: Sequence[str] = ("A", "B", "C")
    behave: Behaviour = well
    settings: dict[str, float] = field(default_factory=dict)
    workers: int = 1

    def study(self) -> Study:
        rounds = {"join_s": 5, "deadline_s": 60} | self.settings
        hospitals = {"train": list(self.sites)}
        return Study.model_validate(
            {"name": "s", "seed": 5, "hospitals": hospitals, "rounds": rounds}
        )

    def grid(self) -> LocalGrid:
        nodes = [{"site": site} for site in self.sites]
        return LocalGrid(client_app(self.behave), nodes, self.workers)

    def run(self, grid: LocalGrid | None = None, **options: Any) -> tuple[Arrays, list[Any]]:
        """Join, then run three rounds of FedAvg unless ``options`` say otherwise."""
        grid = grid or self.grid()
        nodes = options.pop("nodes", None) or dict(
            zip(self.sites, grid.get_node_ids(), strict=True)
        )
        defaults: dict[str, Any] = {
            "stage": "segment",
            "study": self.study(),
            "agreed": {"cuts": [1.0, 2.0]},
            "arrays": initial(),
            "strategy": build("fedavg", {}),
            "num_rounds": 3,
            "weight_by": "patients",
            "max_patients": PATIENTS,
        }
        return run_rounds(grid, nodes, **(defaults | options))

    def join(self) -> dict[str, int]:
        return join(self.grid(), self.sites, 5.0)


@pytest.fixture
def consortium() -> type[Consortium]:
    return Consortium


@pytest.fixture
def late_grid(hand_clock: HandClock) -> Callable[..., LateGrid]:
    def make(sites: Sequence[str], late_s: Sequence[float], behave: Behaviour = well) -> LateGrid:
        return LateGrid(client_app(behave), sites, late_s, hand_clock)

    return make


@pytest.fixture
def hand_clock() -> HandClock:
    return HandClock()


@pytest.fixture
def well_behaved() -> Callable[[str, TrainRequest], TrainReply]:
    return trained


@pytest.fixture
def initial_arrays() -> Callable[[], Arrays]:
    return initial


@pytest.fixture(scope="session")
def study_results() -> dict[str, Any]:
    """The results of a made-up study of five hospitals; a copy is for a test to change."""
    place = Path(__file__).with_name("study_example.py")
    spec = importlib.util.spec_from_file_location("study_example", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.example_results()
