"""Streams of uniform words, and how two hospitals come by the same one.

Agreement: X25519 (RFC 7748). Derivation: HKDF-SHA256 (RFC 5869) with the context of the round as
salt and the purpose and names as info, so that seeds of unlike rounds, pairs and purposes are
independent. Stream: ChaCha20 (RFC 8439) with a key that is used once.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.secure_sum.quantise import WordArray
from protocol.errors import PrivacyError

__all__ = ["SEED_BYTES", "add_stream", "derive", "masked", "pair_secret", "pair_seed"]

# 128 bits: what Shamir's shares in GF(2^128) carry.
SEED_BYTES = 16
BLOCK_BYTES = 2**20
ZEROS = bytes(BLOCK_BYTES)


def pair_secret(private: X25519PrivateKey, public: bytes) -> bytes:
    """Return the 32 bytes that two hospitals, and nobody else, can compute.

    Raises
    ------
    PrivacyError
        If the public key is one whose secret everybody knows (a point of small order).
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise PrivacyError(
            "A peer's key of agreement is none; open a new session, and ask that hospital."
        ) from error


def derive(secret: bytes, purpose: str, context: bytes, length: int) -> bytes:
    """Return ``length`` bytes that follow from a secret, for one purpose in one context."""
    info = f"concors secure sum/{purpose}".encode()
    return HKDF(hashes.SHA256(), length, salt=context, info=info).derive(secret)


def pair_seed(secret: bytes, context: bytes, one: str, other: str) -> bytes:
    """Return the seed k_uv of two hospitals in one round; the order of the names is irrelevant."""
    low, high = sorted((one, other))
    return derive(secret, f"mask/{low}/{high}", context, SEED_BYTES)


def _stream(seed: bytes, size: int) -> Iterator[bytes]:
    # The key is used for this one stream, so a constant nonce is right; a salt is not needed,
    # as the seed is uniform.
    key = derive(seed, "stream", b"", 32)
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    for start in range(0, size, BLOCK_BYTES):
        yield encryptor.update(ZEROS[: min(BLOCK_BYTES, size - start)])


def add_stream(vector: WordArray, seed: bytes, sign: int) -> None:
    """Add (sign 1) or subtract (sign -1) the stream of a seed in place, modulo the word."""
    done, operation = 0, np.add if sign > 0 else np.subtract
    for block in _stream(seed, vector.nbytes):
        words = np.frombuffer(block, vector.dtype.newbyteorder("<"))
        part = vector[done : done + words.size]
        operation(part, words, out=part)
        done += words.size


def masked(
    vector: WordArray, me: str, self_seed: bytes, pair_seeds: Mapping[str, bytes]
) -> WordArray:
    """Return ``y_u``, the masked copy of a hospital's vector.

    Parameters
    ----------
    pair_seeds : mapping
        ``k_uv`` by the name of the peer.
    """
    hidden = vector.copy()
    add_stream(hidden, self_seed, 1)
    for peer in sorted(pair_seeds):
        add_stream(hidden, pair_seeds[peer], 1 if me < peer else -1)
    return hidden
