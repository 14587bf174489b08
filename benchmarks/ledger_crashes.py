"""A hospital's privacy ledger, its process killed again and again.

    python benchmarks/ledger_crashes.py [--kills 1000] [--seed 1]

A process reserves and commits rounds of two studies as fast as it can and says so through a pipe.
SIGKILL ends it, drawn from the seed: before, after or in the middle of one of its system calls
(open, write, fsync, truncate, replace), or at an instant that the parent chooses. In every third
start two processes write at once. After every death a new ledger object opens what lies there, and

* every reservation that was told stands in it, and every commit;
* at most one reservation a process stands in it that was not told (charged, though nothing was
  computed);
* the chain and the head verify, without anybody's help;
* neither the study nor the lifetime is above its cap.

A ledger that has refused enough rounds is followed by a new one.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from privacy.accountant import Spend, epsilon
from privacy.ledger import Ledger
from privacy.policy import PrivacyPolicy
from protocol import audit
from protocol.errors import BudgetError

__all__ = ["main"]

POLICY = PrivacyPolicy(
    noise_multiplier=8.0,
    clip_norm=1.0,
    sampling_rate=1.0,
    steps_per_round=1,
    max_rounds=1000,
    delta=1e-5,
    study_epsilon=2.4,
    lifetime_epsilon=3.0,
    statistics_noise=8.0,
)
SPENDS = (Spend(8.0, 1.0, 1), Spend(20.0, 1.0, 3), Spend(12.0, 1.0, 1))
STUDIES = ("one", "two")
REFUSALS = 6
CALLS = ("open", "write", "fsync", "ftruncate", "replace")


def _ledger(folder: Path) -> Ledger:
    return Ledger(folder / "state" / "ledger.jsonl", head_path=folder / "ledger.head")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _doom(rng: np.random.Generator) -> None:
    """Make one of this process's next system calls its last: before, after or amid it."""
    left = int(rng.integers(1, 90))
    manner = str(rng.choice(["before", "amid", "after"]))
    share = float(rng.random())

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and manner == "amid" and name == "write":
                real(given[0], given[1][: int(share * len(given[1]))])
                _die()
            if left == 0 and manner == "before":
                _die()
            result = real(*given, **named)
            if left == 0:
                _die()
            return result

        return call

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))


def _write_until_killed(folder: Path, pipe: int, seed: list[int], doomed: bool) -> None:
    rng = np.random.default_rng(seed)
    tell = os.write  # before it is wrapped: the pipe is the witness, not the accused
    if doomed:
        _doom(rng)
    ledger, refused = _ledger(folder), 0
    while refused < REFUSALS:
        spend, study = SPENDS[rng.integers(len(SPENDS))], STUDIES[rng.integers(2)]
        try:
            name = ledger.reserve(study, "segment", spend, POLICY)
        except BudgetError:
            tell(pipe, b"refused\n")
            refused += 1
            continue
        tell(pipe, f"reserved {name}\n".encode())
        ledger.commit(name)
        tell(pipe, f"committed {name}\n".encode())


def _start(folder: Path, seed: list[int], doomed: bool) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _write_until_killed(folder, writing, seed, doomed)
        except BaseException as error:  # noqa: BLE001 - a child must never go on as the parent
            os.write(writing, f"failed {type(error).__name__} {error}\n".encode())
        finally:
            os._exit(0)
    os.close(writing)
    return child, reading


def _told(pipe: int) -> list[str]:
    with os.fdopen(pipe, "rb") as stream:
        return stream.read().decode().splitlines()


def _run(folder: Path, seed: list[int], num_children: int) -> tuple[int, list[str]]:
    """Start children, wait for their deaths; return how many were killed and what they told."""
    rng = np.random.default_rng(seed)
    chosen = bool(rng.random() < 0.25)
    children = [_start(folder, [*seed, k], not chosen) for k in range(num_children)]
    if chosen:
        for child, _ in children:
            time.sleep(float(rng.uniform(0, 0.03)))
            # It is not waited for yet, so its number is still its own.
            os.kill(child, signal.SIGKILL)
    statuses = [os.waitpid(child, 0)[1] for child, _ in children]
    lines = [line for _, pipe in children for line in _told(pipe)]
    return sum(os.WIFSIGNALED(status) for status in statuses), lines


class _Witness:
    """What was told of one ledger."""

    def __init__(self) -> None:
        self.reserved: set[str] = set()
        self.committed: set[str] = set()

    def check(self, folder: Path, lines: list[str]) -> tuple[int, float, float]:
        """Return how many were never told, and the largest epsilon of a study and in all."""
        told = [line.partition(" ")[::2] for line in lines]
        failed = [rest for word, rest in told if word == "failed"]
        assert not failed, failed
        self.reserved |= {name for word, name in told if word == "reserved"}
        self.committed |= {name for word, name in told if word == "committed"}
        ledger = _ledger(folder)
        entries = ledger.entries()
        known = {entry.reservation for entry in entries}
        assert self.reserved <= known, "a spent round is forgotten"
        assert self.committed <= {e.reservation for e in entries if e.committed}
        spends = {s: [e.spend for e in entries if e.study == s] for s in STUDIES}
        study = max(epsilon(each, POLICY.delta) for each in spends.values())
        total = epsilon([e.spend for e in entries], POLICY.delta)
        assert study <= POLICY.study_epsilon and total <= POLICY.lifetime_epsilon, "cap exceeded"
        log = folder / "state" / "ledger.jsonl"
        assert not log.exists() or audit.verify(log) == ledger.head
        return len(known - self.reserved), study, total


def main() -> None:
    """Kill, look, kill again; print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    kills = starts = full = reservations = extra = 0
    largest = [0.0, 0.0]
    while kills < options.kills:
        with tempfile.TemporaryDirectory() as name:
            folder, witness, killed_here, untold = Path(name), _Witness(), 0, 0
            refused = 0
            while refused < REFUSALS and kills < options.kills:
                starts += 1
                killed, lines = _run(folder, [options.seed, starts], 1 + (starts % 3 == 0))
                kills, killed_here = kills + killed, killed_here + killed
                untold, *eps = witness.check(folder, lines)
                assert untold <= killed_here, "more charged than one round a kill"
                largest = [max(pair) for pair in zip(largest, eps, strict=True)]
                refused += lines.count("refused")
            full, extra = full + (refused >= REFUSALS), extra + untold
            reservations += len(witness.reserved) + untold
    print(f"{kills} kills in {starts} starts; {full} ledgers filled, {reservations} reservations")
    print(f"forgotten 0; charged though nothing was computed: {extra}, at most one a kill")
    print(f"largest epsilon: study {largest[0]:.4f} of {POLICY.study_epsilon:g}, ", end="")
    print(f"lifetime {largest[1]:.4f} of {POLICY.lifetime_epsilon:g}")


if __name__ == "__main__":
    sys.exit(main())
