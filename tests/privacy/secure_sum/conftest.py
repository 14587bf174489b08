"""A cohort of hospitals in one process: the real mathematics, and no message between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.secure_sum.quantise import WordArray
from privacy.secure_sum.rounds import RoundKeys, mask_vector, open_sum, tell_shares
from privacy.secure_sum.rules import check_opening, least_threshold
from protocol.secure import MaskedReply, SharesByOwner


@dataclass
class Cohort:
    """``number`` hospitals a, b, c, ... that agreed on keys.

    ``replies`` is what the centre got in a round, ``told`` what each was told and answered.
    """

    number: int
    threshold: int = 0
    context: bytes = b"\x01" * 32
    keys: dict[str, RoundKeys] = field(default_factory=dict)
    replies: dict[str, MaskedReply] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple("abcdefghijklmnop"[: self.number])
        self.threshold = self.threshold or least_threshold(self.number)
        private = {name: X25519PrivateKey.generate() for name in names}
        public = {name: key.public_key().public_bytes_raw() for name, key in private.items()}
        self.keys = {
            name: RoundKeys(name, key, public, names, self.threshold, self.context)
            for name, key in private.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.keys)

    def mask(self, vectors: Mapping[str, WordArray]) -> "Cohort":
        self.replies = {name: mask_vector(self.keys[name], v) for name, v in vectors.items()}
        return self

    def tell(self, site: str, active: Sequence[str]) -> SharesByOwner:
        """Have one hospital help with one story of who is active."""
        keys = self.keys[site]
        dropped = [name for name in self.names if name not in active]
        check_opening(self.names, site, self.threshold, active, dropped)
        deposits = {owner: self.replies[owner].deposits[site] for owner in active}
        return tell_shares(keys, active, dropped, deposits)

    def open(self, active: Sequence[str], told: Mapping[str, SharesByOwner]) -> WordArray:
        total = np.zeros_like(next(iter(self.replies.values())).words)
        for name in active:
            total += self.replies[name].words
        commitments = {name: self.replies[name].commitments for name in self.replies}
        open_sum(total, self.names, self.threshold, active, told, commitments)
        return total


@pytest.fixture
def cohort() -> type[Cohort]:
    return Cohort
