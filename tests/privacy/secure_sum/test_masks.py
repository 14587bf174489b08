"""Masks: they cancel in pairs, look uniform, and follow from nothing but their seeds."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scipy.stats import chisquare

from privacy.secure_sum.masks import add_stream, derive, masked, pair_secret, pair_seed
from protocol.errors import PrivacyError

CONTEXT = b"c" * 32


def test_a_stream_is_that_of_chacha20_and_goes_on_over_blocks() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    size = 300_001  # more than one block of bytes
    vector = np.zeros(size, np.uint32)
    add_stream(vector, b"s" * 16, 1)
    key = derive(b"s" * 16, "stream", b"", 32)
    whole = (
        Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(4 * size))
    )
    assert np.array_equal(vector, np.frombuffer(whole, "<u4"))


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_what_one_adds_the_other_subtracts(dtype: type) -> None:
    x = np.arange(1000, dtype=dtype)
    one = masked(x, "a", b"1" * 16, {"b": b"p" * 16})
    other = masked(x, "b", b"2" * 16, {"a": b"p" * 16})
    total = one + other
    for seed in (b"1" * 16, b"2" * 16):
        add_stream(total, seed, -1)
    assert np.array_equal(total, 2 * x)


def test_two_hospitals_come_by_one_seed_and_a_third_by_another() -> None:
    keys = {name: X25519PrivateKey.generate() for name in "abc"}
    public = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}

    def seed(me: str, peer: str, context: bytes = CONTEXT) -> bytes:
        return pair_seed(pair_secret(keys[me], public[peer]), context, me, peer)

    assert seed("a", "b") == seed("b", "a")
    others = {seed("a", "c"), seed("b", "c"), seed("a", "b", b"d" * 32), seed("a", "b")}
    assert len(others) == 4


def test_a_key_whose_secret_everybody_knows_is_refused() -> None:
    with pytest.raises(PrivacyError, match="key of agreement is none"):
        pair_secret(X25519PrivateKey.generate(), bytes(32))


def test_a_masked_vector_of_zeros_is_uniform_in_every_byte() -> None:
    hidden = masked(np.zeros(100_000, np.uint32), "a", b"1" * 16, {"b": b"2" * 16})
    for byte in range(4):
        counts = np.bincount(hidden.view(np.uint8)[byte::4], minlength=256)
        assert chisquare(counts).pvalue > 1e-4
