"""Shares: enough of them restore a seed, fewer say nothing, and a wrong one is found out."""

import itertools
import secrets

import pytest
from Crypto.Protocol.SecretSharing import Shamir

from privacy.secure_sum.shares import (
    SELF,
    commitment,
    open_deposit,
    restore,
    seal_deposit,
    split_seeds,
)
from protocol.errors import PrivacyError

COHORT = tuple("abcde")


@pytest.fixture
def seed() -> bytes:
    return secrets.token_bytes(16)


def held(seed: bytes) -> dict[str, bytes]:
    return {site: part["x"] for site, part in split_seeds({"x": seed}, COHORT, 4).items()}


def test_every_set_of_enough_shares_restores_the_seed(seed: bytes) -> None:
    shares = held(seed)
    for chosen in [*itertools.combinations(COHORT, 4), COHORT]:
        some = {site: shares[site] for site in chosen}
        assert restore(some, COHORT, 4, commitment(seed), "a seed") == seed


def test_one_share_too_few_fits_every_seed_there_is(seed: bytes) -> None:
    shares = held(seed)
    points = [(COHORT.index(site) + 1, shares[site]) for site in "abc"]
    # Whatever the fourth share is claimed to be, another seed comes out: three exclude none.
    found = {Shamir.combine([*points, (4, secrets.token_bytes(16))]) for _ in range(20)}
    assert len(found) == 20 and seed not in found
    with pytest.raises(PrivacyError, match=r"3 shares of a seed came back, expected 4"):
        few = {site: shares[site] for site in "abc"}
        restore(few, COHORT, 4, commitment(seed), "a seed")


def test_a_wrong_share_is_worked_around_or_found_out(seed: bytes) -> None:
    shares = held(seed) | {"b": bytes(16)}
    assert restore(shares, COHORT, 4, commitment(seed), "a seed") == seed
    four = {site: shares[site] for site in "abcd"}
    with pytest.raises(PrivacyError, match="sent a wrong one"):
        restore(four, COHORT, 4, commitment(seed), "a seed")


def test_a_deposit_opens_for_its_receiver_in_its_round_alone() -> None:
    shares, secret, names = {SELF: b"1" * 16, "b": b"2" * 16}, b"k" * 32, [SELF, "b"]
    sealed = seal_deposit(shares, secret, b"r" * 32, "a", "c")
    assert open_deposit(sealed, names, secret, b"r" * 32, "a", "c") == shares
    assert b"1" * 16 not in sealed
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for wrong in (
        (changed, names, secret, b"r" * 32, "a", "c"),
        (sealed, names, secret, b"q" * 32, "a", "c"),
        (sealed, names, b"l" * 32, b"r" * 32, "a", "c"),
        (sealed, names, secret, b"r" * 32, "c", "a"),
        (b"", names, secret, b"r" * 32, "a", "c"),
    ):
        with pytest.raises(PrivacyError, match="were not sealed by it"):
            open_deposit(*wrong)
    with pytest.raises(PrivacyError, match="another number of shares"):
        open_deposit(sealed, [SELF], secret, b"r" * 32, "a", "c")
