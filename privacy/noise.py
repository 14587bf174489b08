"""The hospital's own randomness: noise that nobody else can know, and that is never drawn twice.

Who knows the noise can subtract it. So it must not follow from anything a study brings (its seed)
nor from a generator that other code seeds (``torch.manual_seed`` fixes the noise of a library that
draws from torch's). Noise drawn twice is as bad: two releases with the same noise, subtracted, show
the patients bare. Here every draw is a stretch of ChaCha20 (RFC 8439) under a key of 256 bits that
`secrets` made at this hospital, numbered by a counter that is on the disk before the draw is used:
a crash or a restart skips numbers and repeats none. Whoever takes numbers mixes 32 fresh bytes of
the operating system into the key, so a state that was put back from a backup, and counts from an
old number again, gives other noise nevertheless.

What it does not protect against. Noise in floating point takes only some of the doubles near a
value, and which ones depends on that value: who reads all digits of a sum can rule values out
(Mironov, ACM CCS 2012), and no statement about real numbers covers that. `add_noise` therefore adds
in float64 and rounds the sum to a grid of about a millionth of the noise's standard deviation,
where four thousand million doubles share a point. That removes the digits which the attack reads;
it is a mitigation and no proof, for which `privacy.discrete_gaussian` draws on the integers.
Nothing here hides how long a step takes. The tails end at 8.5 standard deviations (1e-17 of the
mass), far below any delta.
"""

import fcntl
import hashlib
import json
import math
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor

from protocol.errors import DataError

__all__ = ["NoiseSource", "add_noise"]

KEY_BYTES = 32
FRESH_BYTES = 32
# Draws that one write to the disk provides for; those left over at the end are lost, not reused.
RESERVED = 256
# A draw has a nonce of its own and 2^32 blocks of 64 bytes.
MAX_BYTES = 2**38
MAX_DRAWS = 2**63
# The grid of a released sum, as a power of two of its noise's standard deviation.
GRID_BITS = 20


class NoiseSource:
    """A stream of noise whose place is kept on the hospital's disk.

    Parameters
    ----------
    state : Path
        The secret state, a file of the owner only (0600); made with its folder on first use. Two
        processes may share it: they take turns at the counter.

    Raises
    ------
    DataError
        If the state cannot be read, is no such state, or is open to others.
    """

    def __init__(self, state: Path) -> None:
        self._path = state
        self._lock = threading.Lock()
        self._next = self._end = self._process = 0
        self._key = b""

    def __repr__(self) -> str:
        return "NoiseSource()"

    def random_bytes(self, count: int) -> bytes:
        """Return ``count`` bytes of a stretch of the stream that no other draw has."""
        if not 0 <= count < MAX_BYTES:
            raise ValueError(f"count {count} must be at least 0 and below {MAX_BYTES}")
        with self._lock:
            # A forked process must not go on with its parent's numbers under its parent's key.
            if self._next == self._end or self._process != os.getpid():
                self._reserve()
            key, number = self._key, self._next
            self._next += 1
        # ChaCha20 as OpenSSL takes it: the block counter, from 0, in front of the nonce.
        nonce = bytes(4) + number.to_bytes(12, "little")
        stream = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor()
        return stream.update(bytes(count))

    def uniform(self, n: int) -> np.ndarray:
        """Return (n,) float64, uniform on the multiples of 2^-53 in [0, 1)."""
        words = np.frombuffer(self.random_bytes(8 * n), dtype="<u8")
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, shape: Sequence[int], sd: float) -> Tensor:
        """Return independent Gaussian noise, float64 of ``shape``, mean 0.

        Parameters
        ----------
        sd : float
            Standard deviation, >= 0 and finite.

        References
        ----------
        Box & Muller, Ann Math Stat 1958;29:610.
        """
        if not 0 <= sd < math.inf:
            raise ValueError(f"sd {sd} must be at least 0 and finite")
        size = math.prod(shape)
        half = (size + 1) // 2
        u = torch.from_numpy(self.uniform(2 * half))
        # 1 - u is in (0, 1], so that its logarithm is finite.
        radius = torch.log1p(-u[:half]).mul_(-2).sqrt_().mul_(sd)
        angle = u[half:].mul_(2 * math.pi)
        pairs = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)))
        return pairs[:size].reshape(tuple(shape))

    def seed(self) -> int:
        """Return a secret seed, in [0, 2^63), for generators that draw dropout and augmentation."""
        return int.from_bytes(self.random_bytes(8), "little") >> 1

    def _reserve(self) -> None:
        """Take the next numbers, and have them on the disk as taken before any is used."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self._path.with_name(self._path.name + ".lock")):
                master, position = _read(self._path)
                _write(self._path, master, position + RESERVED)
        except OSError as error:
            raise DataError(
                f"The state of the privacy noise cannot be written ({error.strerror}); make the "
                "site's .concors writable, for no noise is drawn that could be drawn again."
            ) from error
        self._next, self._end, self._process = position, position + RESERVED, os.getpid()
        fresh = secrets.token_bytes(FRESH_BYTES)
        self._key = hashlib.blake2b(
            fresh, key=master, digest_size=KEY_BYTES, person=b"concors noise"
        ).digest()


def add_noise(values: Mapping[str, Tensor], sd: float, source: NoiseSource) -> dict[str, Tensor]:
    """Return the values with independent Gaussian noise on every number, on a grid.

    Parameters
    ----------
    values : mapping of str to Tensor
        What is to be released, named; its order is the order of the draws.
    sd : float
        Standard deviation of the noise, > 0.

    Returns
    -------
    dict
        Float64, each number a multiple of a power of two, at most ``sd`` times 2^-20.
    """
    if not 0 < sd < math.inf:
        raise ValueError(f"sd {sd} must be above 0 and finite")
    grid = 2.0 ** (math.floor(math.log2(sd)) - GRID_BITS)
    noise = source.normal((sum(value.numel() for value in values.values()),), sd)
    noised, first = {}, 0
    for name, value in values.items():
        part = noise[first : first + value.numel()].reshape(value.shape).to(value.device)
        noised[name] = torch.round((value.double() + part) / grid) * grid
        first += value.numel()
    return noised


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> tuple[bytes, int]:
    """Return the key and the first number not taken; a new key where there is no state yet."""
    if not path.exists():
        return secrets.token_bytes(KEY_BYTES), 0
    if path.stat().st_mode & 0o077:
        raise DataError(
            "The state of the privacy noise can be read by others than its owner, who could "
            "subtract the noise; delete the file noise.json below the site's .concors, and a new "
            "one is made."
        )
    try:
        state = json.loads(path.read_text(encoding="ascii"))
        key, position = bytes.fromhex(state["key"]), state["next"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            "The state of the privacy noise is damaged; delete the file noise.json below the "
            "site's .concors, and a new one is made."
        ) from error
    if len(key) != KEY_BYTES or type(position) is not int or not 0 <= position < MAX_DRAWS:
        raise DataError(
            "The state of the privacy noise has no key of 32 bytes or no position; delete the file "
            "noise.json below the site's .concors, and a new one is made."
        )
    return key, position


def _write(path: Path, key: bytes, position: int) -> None:
    """Replace the state, whole and on the disk when this returns."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, json.dumps({"key": key.hex(), "next": position}).encode("ascii"))
        os.fsync(handle)
    finally:
        os.close(handle)
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
