"""One round of a secure sum: a hospital masks, a hospital helps to open, the centre opens.

Three pure functions over the pieces of this folder; who may be asked for what is in `rules`, and
what must not be done twice is remembered by `client.secure_state`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.secure_sum.masks import SEED_BYTES, add_stream, masked, pair_secret, pair_seed
from privacy.secure_sum.quantise import WordArray
from privacy.secure_sum.shares import (
    SELF,
    commitment,
    open_deposit,
    restore,
    seal_deposit,
    split_seeds,
)
from protocol.errors import PrivacyError
from protocol.secure import MaskedReply, SharesByOwner

__all__ = ["RoundKeys", "mask_vector", "open_sum", "tell_shares"]


@dataclass(frozen=True)
class RoundKeys:
    """What one hospital knows of one round.

    Attributes
    ----------
    me : str
    private : X25519PrivateKey
        The hospital's own key of agreement.
    agreements : mapping
        Every hospital's public key, its own included; verified.
    cohort : tuple of str
        Sorted.
    threshold : int
    context : bytes
        Hash of everything that all of them must have been told alike.
    """

    me: str
    private: X25519PrivateKey
    agreements: Mapping[str, bytes]
    cohort: tuple[str, ...]
    threshold: int
    context: bytes

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(site for site in self.cohort if site != self.me)

    def secret(self, site: str) -> bytes:
        """Return what this hospital shares with another, or with itself."""
        return pair_secret(self.private, self.agreements[site])


def mask_vector(keys: RoundKeys, vector: WordArray) -> MaskedReply:
    """Return the masked vector, and the round's seeds in sealed shares.

    The self mask's seed is drawn here and lives on in the shares alone.
    """
    own = secrets.token_bytes(SEED_BYTES)
    shared = {site: keys.secret(site) for site in keys.cohort}
    pairs = {peer: pair_seed(shared[peer], keys.context, keys.me, peer) for peer in keys.peers}
    seeds = {SELF: own, **pairs}
    shares = split_seeds(seeds, keys.cohort, keys.threshold)
    deposits = {
        site: seal_deposit(shares[site], shared[site], keys.context, keys.me, site)
        for site in keys.cohort
    }
    commitments = {name: commitment(seed) for name, seed in seeds.items()}
    return MaskedReply(masked(vector, keys.me, own, pairs), deposits, commitments)


def tell_shares(
    keys: RoundKeys,
    active: Sequence[str],
    dropped: Sequence[str],
    deposits: Mapping[str, bytes],
) -> SharesByOwner:
    """Return this hospital's shares of the seeds that open the sum of the active ones.

    Of each active hospital, the self mask's and those of its pairs with the dropped; never the self
    mask's of a dropped one, and never that of a pair of two active ones. `rules.check_opening` has
    passed.

    Raises
    ------
    PrivacyError
        If a deposit is missing or was not sealed for this hospital in this round.
    """
    wanted = (SELF, *sorted(dropped))
    told: SharesByOwner = {}
    for owner in sorted(active):
        if owner not in deposits:
            raise PrivacyError(f"The shares of {owner} did not come; ask the centre's operator.")
        names = [SELF, *(site for site in keys.cohort if site != owner)]
        shares = open_deposit(
            deposits[owner], names, keys.secret(owner), keys.context, owner, keys.me
        )
        told[owner] = {name: shares[name].hex() for name in wanted}
    return told


def open_sum(
    total: WordArray,
    cohort: Sequence[str],
    threshold: int,
    active: Sequence[str],
    told: Mapping[str, SharesByOwner],
    commitments: Mapping[str, Mapping[str, str]],
) -> None:
    """Take the masks off a sum of masked vectors, in place.

    Parameters
    ----------
    total : array
        Sum of the masked vectors of the active hospitals, modulo the word.
    told : mapping
        What each hospital that was asked told, by its name.
    commitments : mapping
        Of each active hospital's reply.

    Raises
    ------
    PrivacyError
        If fewer than ``threshold`` fitting shares of a seed were told.
    """
    dropped = [site for site in cohort if site not in active]
    for owner in sorted(active):
        for name in (SELF, *dropped):
            held = {
                holder: bytes.fromhex(shares[owner][name])
                for holder, shares in told.items()
                if name in shares.get(owner, {})
            }
            expected = commitments[owner].get(name, "")
            seed = restore(held, cohort, threshold, expected, f"a seed of {owner}")
            # What the owner added goes, and what it subtracted comes back.
            added = name == SELF or owner < name
            add_stream(total, seed, -1 if added else 1)
