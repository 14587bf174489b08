"""Small hospitals of tables for the tests, and a grid that keeps every byte that leaves them."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from flwr.app import Message

from client.app import app as client_app
from protocol.config import Study
from server.centre import Centre
from server.findings import Findings, to_results
from server.hospitals import join
from server.progress import Progress
from server.results import Results
from server.stages import STAGES
from server.study import run_study
from sim.engines.contract import SITE_KEY
from sim.grid import LocalGrid
from sim.secret import write_public_secret

HEADER = ("id", "fu", "ev", "age", "G12")
EFFECT = np.array([0.05, 0.8])


def cohort(seed: int, number: int) -> dict[str, np.ndarray]:
    """Draw a hospital's patients: no time or covariate is a round number, none stands twice."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(60, 10, number), rng.normal(0, 1, number)])
    time = rng.exponential(40 * np.exp(-(x - [60, 0]) @ EFFECT))
    end = rng.uniform(6, 72, number)
    months = np.minimum(time, end) + 0.01
    return {
        "months": months,
        "event": (time <= end).astype(int),
        "x": x,
        "start": months * rng.uniform(0, 0.5, number),
    }


def write_hospital(
    folder: Path,
    name: str,
    patients: dict[str, np.ndarray],
    *,
    late: bool = False,
    causes: int = 1,
    **settings: Any,
) -> Path:
    """Write ``site.yaml`` and ``outcomes.csv``; NaN covariates become empty cells."""
    site = folder / name
    site.mkdir()
    header = [*HEADER, *(["start"] if late else [])]
    with (site / "outcomes.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for i in range(len(patients["months"])):
            cells = ["" if np.isnan(v) else repr(float(v)) for v in patients["x"][i]]
            row = [f"P{i}", repr(float(patients["months"][i])), int(patients["event"][i]), *cells]
            writer.writerow([*row, *([repr(float(patients["start"][i]))] if late else [])])
    outcomes: dict[str, Any] = {"path": "outcomes.csv", "patient": "id", "months": "fu"}
    outcomes |= {"event": "ev", **({"causes": causes} if causes > 1 else {})}
    content = {
        "name": name,
        "outcomes": outcomes | ({"start": "start"} if late else {}),
        "covariates": {
            "age": {"column": "age", "unit": "years"},
            "gene_12": {"column": "G12", "unit": "as is"},
        },
        **settings,
    }
    (site / "site.yaml").write_text(yaml.safe_dump(content))
    write_public_secret(site)
    return site


class RecordingGrid(LocalGrid):
    """Keeps what every hospital sent: (site, topic, text of all records).

    Weights are not looked into; where none may be sent, ``models`` is False.
    """

    def __init__(self, sites: Sequence[Path], models: bool = False) -> None:
        super().__init__(client_app, [{SITE_KEY: str(site)} for site in sites])
        self.names = {2 + index: site.name for index, site in enumerate(sites)}
        self.sent: list[tuple[str, str, str]] = []
        self.models = models
        self.lost: set[tuple[str, int]] = set()
        self.asked: dict[str, int] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = super().pull_messages(message_ids)
        return [self._noted(reply) for reply in replies]

    def _noted(self, reply: Message) -> Message:
        site = self.names[reply.metadata.src_node_id]
        topic = reply.metadata.message_type
        text = repr(reply.error) if reply.has_error() else self._text(reply)
        self.sent.append((site, topic, text))
        return reply

    def _text(self, reply: Message) -> str:
        kinds = set(reply.content) - ({"arrays"} if self.models else set())
        assert kinds == {"document"}, "only documents are sent in this study"
        return str(reply.content["document"]["json"])

    def numbers(self, topic: str = "") -> np.ndarray:
        """Return every number any hospital sent in answer to a topic (all, by default)."""
        found: list[float] = []
        for _, kind, text in self.sent:
            if topic in kind and text.startswith("{"):
                found += _numbers(json.loads(text))
        return np.array(found)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def regression_study(names: Sequence[str], external: Sequence[str] = (), **changes: Any) -> Study:
    """Return a study of survey and regression on age and gene_12."""
    section = {"covariates": ["age", "gene_12"], "patients": "all"}
    return Study.model_validate(
        {
            "name": "reg",
            "seed": 5,
            "hospitals": {"train": list(names), "external": list(external)},
            "stages": ["survey", "regression"],
            "validate": {"bootstrap": 20},
            "rounds": {"join_s": 5},
            **changes,
            "regression": {**section, **changes.get("regression", {})},
        }
    )


def judge(study: Study, grid: LocalGrid, folder: Path) -> Results:
    """Run a study's stages without drawing its report."""
    nodes = join(grid, study.hospitals.all, study.rounds.join_s)
    centre, findings = Centre(grid, nodes, study, folder, Progress(folder)), Findings()
    for name in study.stages:
        STAGES[name](centre, findings)
    return to_results(study, findings)


def run(study: Study, grid: LocalGrid, folder: Path) -> Results:
    """Run a study into ``folder``."""
    return run_study(grid, study, folder)
