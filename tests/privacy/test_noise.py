"""The hospital's noise: Gaussian, secret, never drawn twice."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from privacy import noise as noise_module
from privacy.noise import NoiseSource, add_noise
from protocol.errors import DataError

SIZE = 20_000


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / ".concors" / "noise.json"


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1])


def test_normal_draws_are_gaussian_with_the_given_standard_deviation(state: Path) -> None:
    drawn = NoiseSource(state).normal((SIZE,), 3.0).numpy()
    assert stats.kstest(drawn, stats.norm(scale=3.0).cdf).pvalue > 1e-6
    # Both halves of Box and Muller's pairs, and the pairs themselves.
    half = SIZE // 2
    assert stats.kstest(drawn[:half], stats.norm(scale=3.0).cdf).pvalue > 1e-6
    assert abs(np.corrcoef(drawn[:half], drawn[half:])[0, 1]) < 0.06
    assert abs(np.corrcoef(drawn[:half] ** 2, drawn[half:] ** 2)[0, 1]) < 0.06


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5)])
def test_every_shape_can_be_drawn(state: Path, shape: tuple[int, ...]) -> None:
    drawn = NoiseSource(state).normal(shape, 1.0)
    assert drawn.shape == shape and drawn.dtype == torch.float64


def test_uniform_draws_are_uniform_below_one(state: Path) -> None:
    drawn = NoiseSource(state).uniform(SIZE)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert stats.kstest(drawn, stats.uniform.cdf).pvalue > 1e-6


def test_two_draws_two_sources_and_two_hospitals_are_uncorrelated(tmp_path: Path) -> None:
    here, there = NoiseSource(tmp_path / "a.json"), NoiseSource(tmp_path / "b.json")
    again = NoiseSource(tmp_path / "a.json")
    draws = [source.normal((SIZE,), 1.0) for source in (here, here, again, there)]
    for i in range(4):
        for j in range(i):
            # Five standard errors.
            assert abs(correlation(draws[i], draws[j])) < 5 / SIZE**0.5


def test_no_seed_of_anybody_has_an_influence(state: Path) -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)
        before = torch.random.get_rng_state()
        draws.append(NoiseSource(state).normal((SIZE,), 1.0))
        assert torch.equal(before, torch.random.get_rng_state())
    assert abs(correlation(*draws)) < 5 / SIZE**0.5


def test_the_position_is_on_the_disk_before_a_draw_is_used(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, seen = NoiseSource(state), []
    real = noise_module.Cipher

    def cipher(algorithm: object, mode: None) -> object:
        number = int.from_bytes(algorithm.nonce[4:], "little")  # type: ignore[attr-defined]
        seen.append((number, json.loads(state.read_text())["next"]))
        return real(algorithm, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(noise_module, "Cipher", cipher)
    for _ in range(600):
        source.random_bytes(1)
    assert [number for number, _ in seen] == list(range(600))
    assert all(number < taken for number, taken in seen)


def test_a_restart_takes_numbers_that_were_never_taken(state: Path) -> None:
    NoiseSource(state).random_bytes(1)
    first = json.loads(state.read_text())
    NoiseSource(state).random_bytes(1)
    second = json.loads(state.read_text())
    assert second["key"] == first["key"] and second["next"] > first["next"]


def test_a_killed_process_does_not_give_its_noise_away_again(state: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from privacy.noise import NoiseSource\n"
        "print(NoiseSource(Path(sys.argv[1])).random_bytes(32).hex(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    drawn = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", code, str(state)], capture_output=True, text=True, check=False
        )
        assert run.returncode == -9, run.stderr
        drawn.append(run.stdout.strip())
    assert len(set(drawn)) == 2 and all(len(each) == 64 for each in drawn)


def test_a_state_put_back_from_a_backup_gives_other_noise(state: Path) -> None:
    NoiseSource(state).random_bytes(1)
    backup = state.read_bytes()
    first = NoiseSource(state).normal((SIZE,), 1.0)
    state.write_bytes(backup)
    second = NoiseSource(state).normal((SIZE,), 1.0)
    assert abs(correlation(first, second)) < 5 / SIZE**0.5


def test_a_forked_process_draws_other_noise_than_its_parent(state: Path) -> None:
    source = NoiseSource(state)
    source.random_bytes(1)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, source.random_bytes(32))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(ours, 32) != source.random_bytes(32)
    os.close(ours), os.close(theirs)


def _take(state: Path, count: int) -> None:
    for _ in range(count):
        NoiseSource(state).random_bytes(1)


def test_processes_that_share_a_state_take_turns(state: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_take, args=(state, 10)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
    assert json.loads(state.read_text())["next"] == 40 * noise_module.RESERVED


def test_the_state_is_readable_by_its_owner_only(state: Path) -> None:
    source = NoiseSource(state)
    source.random_bytes(1)
    assert state.stat().st_mode & 0o777 == 0o600
    state.chmod(0o644)
    with pytest.raises(DataError, match="read by others than its owner"):
        NoiseSource(state).random_bytes(1)


def test_neither_key_nor_position_is_printed(state: Path) -> None:
    source = NoiseSource(state)
    source.random_bytes(1)
    assert json.loads(state.read_text())["key"] not in f"{source} {source!r}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is damaged"),
        ("[]", "is damaged"),
        ('{"key": "zz", "next": 0}', "is damaged"),
        ('{"key": "00", "next": 0}', "no key of 32 bytes"),
        (json.dumps({"key": "00" * 32, "next": -1}), "no position"),
        (json.dumps({"key": "00" * 32, "next": True}), "no position"),
    ],
)
def test_a_damaged_state_is_refused(state: Path, text: str, sentence: str) -> None:
    state.parent.mkdir()
    state.write_text(text)
    state.chmod(0o600)
    with pytest.raises(DataError, match=sentence):
        NoiseSource(state).uniform(1)


def test_a_state_that_cannot_be_written_stops_the_draw(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        NoiseSource(tmp_path / "occupied" / "noise.json").normal((3,), 1.0)


def test_noise_is_added_to_every_number_on_a_grid(state: Path) -> None:
    values = {"a": torch.full((100, 50), 4.0), "b": torch.zeros(7), "c": torch.tensor(2.0)}
    noised = add_noise(values, 0.7, NoiseSource(state))
    assert {name: v.shape for name, v in noised.items()} == {
        name: v.shape for name, v in values.items()
    }
    grid = 2.0**-21  # the power of two at most 0.7 is 2^-1
    for name, value in noised.items():
        assert value.dtype == torch.float64
        assert torch.equal(value / grid, (value / grid).round())
        assert (value != values[name]).all()
    drawn = (noised["a"] - 4.0).numpy().ravel()
    assert stats.kstest(drawn, stats.norm(scale=0.7).cdf).pvalue > 1e-6


def test_impossible_draws_are_refused(state: Path) -> None:
    source = NoiseSource(state)
    for sd in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="sd"):
            source.normal((1,), sd)
    with pytest.raises(ValueError, match="sd 0"):
        add_noise({}, 0, source)
    with pytest.raises(ValueError, match="count"):
        source.random_bytes(-1)


def test_seeds_differ(state: Path) -> None:
    source = NoiseSource(state)
    seeds = {source.seed() for _ in range(50)}
    assert len(seeds) == 50 and all(0 <= seed < 2**63 for seed in seeds)
