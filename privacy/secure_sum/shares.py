"""The seeds of one round, split among the hospitals and sealed for each.

Shamir 1979, "How to share a secret" (Comm. ACM 22:612), in GF(2^128), as PyCryptodome has it: any
``t`` shares of a seed restore it, fewer are independent of it. What a hospital deposits for a peer
is its share of the depositor's self-mask seed b_u and of each of its pairwise seeds k_uv, sealed
with ChaCha20-Poly1305 under a key of the two, with the round and both names in the key.
"""

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence

from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from privacy.secure_sum.masks import SEED_BYTES, derive
from protocol.errors import PrivacyError

__all__ = ["SELF", "commitment", "open_deposit", "restore", "seal_deposit", "split_seeds"]

# The name under which a self-mask seed stands among the seeds by peer.
SELF = ""
NONCE_BYTES = 12
# Sets of shares tried before a seed is given up: with honest hospitals the first restores it.
MAX_TRIES = 200


def split_seeds(
    seeds: Mapping[str, bytes], cohort: Sequence[str], threshold: int
) -> dict[str, dict[str, bytes]]:
    """Return each hospital's shares of each seed: ``{hospital: {seed's name: share}}``."""
    shares: dict[str, dict[str, bytes]] = {site: {} for site in cohort}
    for name, seed in seeds.items():
        for index, share in Shamir.split(threshold, len(cohort), seed, ssss=False):
            shares[cohort[index - 1]][name] = share
    return shares


def restore(
    shares: Mapping[str, bytes], cohort: Sequence[str], threshold: int, expected: str, whose: str
) -> bytes:
    """Return the seed that its shares restore.

    Parameters
    ----------
    shares : mapping
        By the hospital that held them.
    expected : str
        The seed's `commitment`, from who deposited it.

    Raises
    ------
    PrivacyError
        If there are too few, or no ``threshold`` of them restore the seed: a share is wrong.
    """
    points = [(cohort.index(site) + 1, shares[site]) for site in sorted(shares)]
    for chosen in itertools.islice(itertools.combinations(points, threshold), MAX_TRIES):
        seed: bytes = Shamir.combine(list(chosen), ssss=False)
        if commitment(seed) == expected:
            return seed
    raise PrivacyError(
        f"{len(shares)} shares of {whose} came back, expected {threshold} that fit together; a "
        "hospital left or sent a wrong one, so ask for the round again."
    )


def commitment(seed: bytes) -> str:
    """Return a hash that a restored seed is compared with; seeds are too long to be guessed."""
    return hashlib.sha256(b"concors secure sum/commitment" + seed).hexdigest()


def _key(secret: bytes, context: bytes, sender: str, receiver: str) -> bytes:
    return derive(secret, f"deposit/{sender}/{receiver}", context, 32)


def seal_deposit(
    shares: Mapping[str, bytes], secret: bytes, context: bytes, sender: str, receiver: str
) -> bytes:
    """Return a hospital's shares of the seeds of ``sender``, for ``receiver`` alone to open.

    Parameters
    ----------
    secret : bytes
        From `masks.pair_secret` of the two.
    context : bytes
        Of the round.
    """
    plain = b"".join(shares[name] for name in sorted(shares))
    nonce = os.urandom(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(_key(secret, context, sender, receiver)).encrypt(
        nonce, plain, None
    )


def open_deposit(
    sealed: bytes, names: Sequence[str], secret: bytes, context: bytes, sender: str, receiver: str
) -> dict[str, bytes]:
    """Return the shares in a deposit by the names of the seeds.

    Raises
    ------
    PrivacyError
        If it was not sealed by ``sender`` for ``receiver`` in this round.
    """
    try:
        plain = ChaCha20Poly1305(_key(secret, context, sender, receiver)).decrypt(
            sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None
        )
    except (InvalidTag, ValueError) as error:
        raise PrivacyError(
            f"The shares that came from {sender} were not sealed by it for {receiver} in this "
            "round; somebody changed them on their way, so ask the centre's operator."
        ) from error
    if len(plain) != SEED_BYTES * len(names):
        raise PrivacyError(f"{sender} deposited another number of shares; install one version.")
    parts = [plain[i : i + SEED_BYTES] for i in range(0, len(plain), SEED_BYTES)]
    return dict(zip(sorted(names), parts, strict=True))
