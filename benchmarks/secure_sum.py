"""What secure sums cost: bytes and time of ten hospitals' rounds, masked and plain.

Ten hospitals of tables train a network of half a million weights (two hidden layers of 700) for two
rounds through the real apps, first plainly, then masked, then masked while three of the ten fail in
every round: one before it sends, two after sending and before the sum is opened. Bytes are those of
everything that is said from the first key on, both ways: documents as JSON, arrays as they travel.
The masked models are compared with the plain ones to the step of quantisation. Then one round of
the mathematics alone is timed, a step at a time.

Run: ``python benchmarks/secure_sum.py``. The claim: at most 1.5 times the bytes of plain rounds.
"""

import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}

import numpy as np
import yaml
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client.app import app as client_app
from privacy.secure_sum.quantise import FixedPoint
from privacy.secure_sum.rounds import RoundKeys, mask_vector, open_sum, tell_shares
from privacy.secure_sum.rules import least_threshold
from protocol.arrays import Arrays
from protocol.config import Study
from server.centre import Centre
from server.findings import Findings
from server.hospitals import join
from server.progress import Progress
from server.stages import STAGES
from sim.engines.contract import SITE_KEY
from sim.grid import LocalGrid
from sim.introductions import introduce
from sim.secret import write_public_secret

NUM_HOSPITALS, NUM_ROUNDS, BAR, REPEATS = 10, 2, 1.5, 5
HIDDEN, STEP_BITS = (700, 700), 24
NAMES = [f"h{k}" for k in range(NUM_HOSPITALS)]
TRAIN, TELL = "train.prognosis", "query.secure_tell"
Fails = Callable[[str, str], bool]


def write_hospitals(folder: Path) -> list[Path]:
    """Write ten hospitals of 40 to 67 patients who trust each other's keys."""
    sites = []
    for number, name in enumerate(NAMES):
        site = folder / name
        site.mkdir()
        rng = np.random.default_rng(number)
        with (site / "outcomes.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "months", "event", "age"])
            for patient in range(40 + 3 * number):
                age = rng.normal(60, 10)
                time_months = rng.exponential(40 * np.exp(-0.05 * (age - 60)))
                end = rng.uniform(6, 72)
                row = [min(time_months, end) + 0.01, int(time_months <= end), age]
                writer.writerow([f"P{patient}", *row])
        outcomes = {"path": "outcomes.csv", "patient": "id", "months": "months", "event": "event"}
        content = {
            "name": name,
            "outcomes": outcomes,
            "covariates": {"age": {"column": "age", "unit": "years"}},
        }
        (site / "site.yaml").write_text(yaml.safe_dump(content))
        write_public_secret(site)
        sites.append(site)
    introduce(sites)
    return sites


class CountingGrid(LocalGrid):
    """Counts what is said, and has hospitals fail as told."""

    def __init__(self, sites: list[Path], fails: Fails) -> None:
        super().__init__(client_app, [{SITE_KEY: str(site)} for site in sites])
        self.names = dict(zip(self.get_node_ids(), NAMES, strict=True))
        self.fails = fails
        self.sent: dict[str, int] = {}

    def _count(self, message: Message) -> None:
        if message.has_error():
            return
        size = sum(
            len(array.data)
            for record in message.content.array_records.values()
            for array in record.values()
        )
        size += sum(len(str(record["json"])) for record in message.content.config_records.values())
        kind = message.metadata.message_type
        self.sent[kind] = self.sent.get(kind, 0) + size

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages, counted."""
        kept = list(messages)
        for message in kept:
            self._count(message)
        return super().push_messages(kept)

    def _execute(self, message: Message) -> Message:
        site = self.names[message.metadata.dst_node_id]
        if self.fails(site, message.metadata.message_type):
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "ended")
            return Message(error, reply_to=message)
        return super()._execute(message)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return replies, counted."""
        replies = super().pull_messages(message_ids)
        for reply in replies:
            self._count(reply)
        return replies


def study(name: str, secure: bool) -> Study:
    """Return a study of two rounds."""
    network = {"name": "tabular", "options": {"hidden": list(HIDDEN), "field_dropout": 0.0}}
    training = {"learning_rate": 0.001, "epochs": 1}
    return Study.model_validate(
        {
            "name": name,
            "seed": 1,
            "hospitals": {"train": NAMES},
            "stages": ["survey", "prognosis"],
            "rounds": {"quorum": 0.7},
            "secure_aggregation": {"step_bits": STEP_BITS} if secure else None,
            "prognosis": {
                "network": network,
                "covariates": ["age"],
                "num_intervals": 8,
                "rounds": NUM_ROUNDS,
                "training": training,
            },
        }
    )


def run(name: str, secure: bool, sites: list[Path], folder: Path, fails: Fails) -> tuple:
    """Return the model, its history, the bytes by message type and the seconds."""
    grid = CountingGrid(sites, fails)
    nodes = join(grid, NAMES, 60.0)
    place = folder / name
    place.mkdir()
    centre, findings = Centre(grid, nodes, study(name, secure), place, Progress(place)), Findings()
    STAGES["survey"](centre, findings)
    grid.sent.clear()
    start = time.perf_counter()
    STAGES["prognosis"](centre, findings)
    seconds = time.perf_counter() - start
    return findings.prognosis, findings.history["prognosis"], grid.sent, seconds


def difference(one: Arrays, other: Arrays) -> float:
    """Return the largest difference of two models."""
    return max(float(np.abs(one[name] - other[name]).max()) for name in other)


def mathematics(size: int) -> dict[str, float]:
    """Return the median seconds of each step of one round of ten hospitals, three dropped."""
    private = {name: X25519PrivateKey.generate() for name in NAMES}
    public = {name: key.public_key().public_bytes_raw() for name, key in private.items()}
    threshold, active = least_threshold(NUM_HOSPITALS), NAMES[3:]
    keys = {
        name: RoundKeys(name, private[name], public, tuple(NAMES), threshold, b"c" * 32)
        for name in NAMES
    }
    rng, grid, seconds = np.random.default_rng(0), FixedPoint(STEP_BITS, 32), {}
    update = rng.normal(0, 1e-3, size)

    def timed(step: str, function: Callable, *arguments: object) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        seconds.setdefault(step, []).append(time.perf_counter() - start)
        return result

    for _ in range(REPEATS):
        words = {n: timed("quantise", grid.encode, update, 10, "x") for n in active}
        replies = {n: timed("mask and share", mask_vector, keys[n], words[n]) for n in active}
        told = {}
        for n in active:
            deposits = {owner: replies[owner].deposits[n] for owner in active}
            told[n] = timed("tell shares", tell_shares, keys[n], active, NAMES[:3], deposits)
        total = np.sum([reply.words for reply in replies.values()], axis=0, dtype=np.uint32)
        commitments = {n: reply.commitments for n, reply in replies.items()}
        timed("open the sum", open_sum, total, NAMES, threshold, active, told, commitments)
        assert np.array_equal(total, np.sum(list(words.values()), axis=0, dtype=np.uint32))
    return {step: statistics.median(times) for step, times in seconds.items()}


def nobody(site: str, kind: str) -> bool:
    """Return that no hospital fails."""
    return False


def dropping(site: str, kind: str) -> bool:
    """Return whether a hospital fails: one before it sends, two before the sum is opened."""
    return (site, kind) == ("h3", TRAIN) or (site in ("h0", "h7") and kind == TELL)


def main() -> int:
    """Print the tables and say whether the claim holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sites = write_hospitals(folder)
        plain = run("plain", False, sites, folder, nobody)
        secure = run("secure", True, sites, folder, nobody)
        missing = run("missing", False, sites, folder, dropping)
        dropped = run("dropped", True, sites, folder, dropping)
    size = sum(array.size for array in plain[0].values())
    print(f"{NUM_HOSPITALS} hospitals, {size} weights, {NUM_ROUNDS} rounds")
    print(f"{'':24}{'bytes':>14}{'ratio':>9}{'seconds':>9}   largest difference from plain")
    base = sum(plain[2].values())
    for label, found, reference in (
        ("plain", plain, plain),
        ("masked", secure, plain),
        ("masked, 3 of 10 failing", dropped, missing),
    ):
        total = sum(found[2].values())
        ratio = total / sum(reference[2].values())
        apart = difference(found[0], reference[0])
        print(f"{label:24}{total:14,d}{ratio:9.4f}{found[3]:9.2f}   {apart:.2e}")
    for kind, sent in sorted(secure[2].items()):
        print(f"  {kind:22}{sent:14,d}")
    for step, seconds in mathematics(size).items():
        print(f"{step:24}{1000 * seconds:14.1f} ms")
    ratio = sum(secure[2].values()) / base
    print(f"ratio {ratio:.4f}   claim: at most {BAR}")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
