"""What a curious, a lying and a colluding centre can make of a round of ten hospitals: a sum.

Each attack that must fail stands beside one that must succeed, so that it could have.
"""

import secrets
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from privacy.secure_sum.masks import add_stream, pair_secret, pair_seed
from privacy.secure_sum.quantise import FixedPoint, WordArray
from privacy.secure_sum.rules import check_opening
from privacy.secure_sum.shares import SELF, open_deposit, restore
from protocol.errors import PrivacyError

GRID = FixedPoint(24, 32)
SIZE = 4096
VICTIM = "d"


def updates(seed: int, names: tuple[str, ...], size: int = SIZE) -> dict[str, WordArray]:
    rng = np.random.default_rng(seed)
    return {name: GRID.encode(rng.normal(0, 1e-3, size), 10, "x") for name in names}


def uniform(words: WordArray) -> bool:
    bytes_of = words.view(np.uint8)
    tests = [chisquare(np.bincount(bytes_of[at::4], minlength=256)).pvalue for at in range(4)]
    # The seeds are the system's, and a test that fails by chance once in a while is none.
    return min(tests) > 1e-9


def alike(words: WordArray, update: WordArray) -> float:
    """Return the correlation of what an attacker has with the update."""
    return float(np.corrcoef(GRID.decode(words), GRID.decode(update))[0, 1])


# The sum -----------------------------------------------------------------------------------------


def test_three_of_ten_drop_at_each_of_the_worst_moments_and_the_sum_is_exact(cohort) -> None:
    ten = cohort(10)
    vectors = updates(1, ten.names)
    sent = [name for name in ten.names if name not in "aej"]
    # a, e and j agreed on keys and never sent: all their masks with the others remain.
    ten.mask({name: vectors[name] for name in sent})
    told = {site: ten.tell(site, sent) for site in sent}
    expected = np.sum([vectors[name] for name in sent], axis=0, dtype=np.uint32)
    assert np.array_equal(ten.open(sent, told), expected)
    # All ten sent, and three are gone before they can help to open.
    ten.mask(vectors)
    told = {site: ten.tell(site, ten.names) for site in sent}
    everybody = np.sum(list(vectors.values()), axis=0, dtype=np.uint32)
    assert np.array_equal(ten.open(ten.names, told), everybody)


def test_some_drop_before_sending_and_others_before_opening(cohort) -> None:
    ten = cohort(10, threshold=7)
    vectors = updates(2, ten.names)
    sent = [name for name in ten.names if name != "a"]
    ten.mask({name: vectors[name] for name in sent})
    told = {site: ten.tell(site, sent) for site in sent if site not in "bj"}
    assert len(told) == 7
    expected = np.sum([vectors[name] for name in sent], axis=0, dtype=np.uint32)
    assert np.array_equal(ten.open(sent, told), expected)
    told.popitem()
    with pytest.raises(PrivacyError, match=r"6 shares of a seed of . came back, expected 7"):
        ten.open(sent, told)


# The transcript alone ----------------------------------------------------------------------------


def test_masked_vectors_are_uniform_whatever_they_hide(cohort) -> None:
    ten = cohort(10)
    vectors = updates(3, ten.names, 50_000) | {VICTIM: np.zeros(50_000, np.uint32)}
    ten.mask(vectors)
    assert all(uniform(ten.replies[name].words) for name in ten.names)
    assert not uniform(vectors["a"]) and not uniform(vectors[VICTIM])
    # Nor do sums of fewer than all cancel anything.
    part = sum((ten.replies[n].words for n in ten.names[:9]), np.zeros(50_000, np.uint32))
    assert uniform(part)


def test_two_updates_cannot_be_told_apart(cohort) -> None:
    """The attacker knows both updates and guesses which one was sent from all the centre got."""
    games, won, won_bare = 120, 0, 0
    three = cohort(3)
    one, other = updates(4, ("one", "other"), 256).values()
    rest = updates(5, three.names, 256)
    contrast = GRID.decode(one) - GRID.decode(other)
    for _ in range(games):
        secret = secrets.randbelow(2)
        vector = (one, other)[secret]
        three.mask(rest | {"a": vector})
        seen = three.replies["a"].words
        won += int((float(GRID.decode(seen) @ contrast) < 0) == bool(secret))
        won_bare += int(
            (
                float(
                    (GRID.decode(vector) - (GRID.decode(one) + GRID.decode(other)) / 2) @ contrast
                )
                < 0
            )
            == bool(secret)
        )
    assert won_bare == games
    assert binom.sf(won - 1, games, 0.5) > 1e-8


def test_the_same_update_twice_gives_unrelated_transcripts(cohort) -> None:
    four = cohort(4)
    vectors = updates(6, four.names)
    first = four.mask(vectors).replies["a"].words
    second = four.mask(vectors).replies["a"].words
    # The pairwise masks of one context are equal; the self mask is drawn anew.
    assert uniform(first - second)


# Colluding ---------------------------------------------------------------------------------------


def peel(ten, colluders: str, victim: str) -> WordArray:
    """Return the victim's vector with everything off that colluders know how to take off."""
    words = ten.replies[victim].words.copy()
    for name in colluders:
        keys = ten.keys[name]
        secret = pair_secret(keys.private, keys.agreements[victim])
        seed = pair_seed(secret, keys.context, victim, name)
        add_stream(words, seed, -1 if victim < name else 1)
    return words


def shares_of(ten, colluders: str, victim: str) -> dict[str, dict[str, bytes]]:
    names = [SELF, *(name for name in ten.names if name != victim)]
    return {
        name: open_deposit(
            ten.replies[victim].deposits[name],
            names,
            ten.keys[name].secret(victim),
            ten.context,
            victim,
            name,
        )
        for name in colluders
    }


def test_one_hospital_fewer_than_the_threshold_learns_nothing_with_the_centre(cohort) -> None:
    ten = cohort(10)
    vectors = updates(7, ten.names, 20_000)
    ten.mask(vectors)
    colluders = "abcefg"
    assert len(colluders) == ten.threshold - 1
    words = peel(ten, colluders, VICTIM)
    assert uniform(words) and abs(alike(words, vectors[VICTIM])) < 0.05
    shares = {name: part[SELF] for name, part in shares_of(ten, colluders, VICTIM).items()}
    expected = ten.replies[VICTIM].commitments[SELF]
    with pytest.raises(PrivacyError, match="6 shares of b_d came back, expected 7"):
        restore(shares, ten.names, 7, expected, "b_d")
    # Nor with the lowest threshold that would go through: six shares as if they were enough.
    with pytest.raises(PrivacyError, match="fit together"):
        restore(shares, ten.names, 6, expected, "b_d")


def test_with_all_others_on_its_side_the_centre_has_the_vector(cohort) -> None:
    ten = cohort(10)
    vectors = updates(8, ten.names)
    ten.mask(vectors)
    colluders = "abcefghij"
    shares = {name: part[SELF] for name, part in shares_of(ten, colluders, VICTIM).items()}
    seed = restore(shares, ten.names, 7, ten.replies[VICTIM].commitments[SELF], "b_d")
    words = peel(ten, colluders, VICTIM)
    add_stream(words, seed, -1)
    assert np.array_equal(words, vectors[VICTIM])


# Lying -------------------------------------------------------------------------------------------


def test_a_victim_called_active_and_dropped_is_bared_by_no_set_of_stories(cohort) -> None:
    ten = cohort(10)
    vectors = updates(9, ten.names, 20_000)
    ten.mask(vectors)
    others = [name for name in ten.names if name != VICTIM]
    # Seven hear that the victim is active, three (the victim cannot be told so) that it dropped.
    with_victim = {site: ten.tell(site, ten.names) for site in (*others[:6], VICTIM)}
    without = {site: ten.tell(site, others) for site in others[6:]}
    self_shares = {s: told[VICTIM][SELF] for s, told in with_victim.items()}
    assert len(self_shares) == 7  # enough to restore the self mask, so only pairs protect it
    told = with_victim | without
    pair_shares = [
        (owner, sum(VICTIM in shares.get(owner, {}) for shares in told.values()))
        for owner in others
    ]
    assert max(count for _, count in pair_shares) == 3 < ten.threshold
    with pytest.raises(PrivacyError, match="3 shares of a seed"):
        ten.open(others, without)


def test_the_story_in_one_request_is_refused_by_everybody(cohort) -> None:
    ten = cohort(10)
    ten.mask(updates(10, ten.names, 8))
    for site in ten.names:
        with pytest.raises(PrivacyError, match="d is active and has dropped out"):
            check_opening(ten.names, site, ten.threshold, ten.names, ("d",))
        with pytest.raises(PrivacyError):
            ten.tell(site, ["d"])


def test_a_dropped_hospital_s_late_vector_stays_masked(cohort) -> None:
    ten = cohort(10)
    vectors = updates(11, ten.names, 20_000)
    ten.mask(vectors)
    others = [name for name in ten.names if name != VICTIM]
    told = {site: ten.tell(site, others) for site in others}
    expected = np.sum([vectors[name] for name in others], axis=0, dtype=np.uint32)
    assert np.array_equal(ten.open(others, told), expected)
    # Its vector came late: with all pairs of the round restored, the self mask alone is left.
    late = ten.replies[VICTIM].words.copy()
    for owner in others:
        held = {s: bytes.fromhex(shares[owner][VICTIM]) for s, shares in told.items()}
        seed = restore(held, ten.names, 7, ten.replies[owner].commitments[VICTIM], "k")
        add_stream(late, seed, -1 if owner > VICTIM else 1)
    assert uniform(late) and abs(alike(late, vectors[VICTIM])) < 0.05


def test_unlike_requests_give_masks_that_do_not_cancel(cohort) -> None:
    five = cohort(5)
    vectors = updates(12, five.names, 20_000)
    five.keys["a"] = replace(five.keys["a"], context=b"\x02" * 32)
    five.mask(vectors)
    five.keys["a"] = replace(five.keys["a"], context=five.context)
    total = sum((five.replies[n].words for n in five.names), np.zeros(20_000, np.uint32))
    for name in "bcde":
        told = shares_of(five, "bcde", name)
        held = {site: part[SELF] for site, part in told.items()}
        seed = restore(held, five.names, 4, five.replies[name].commitments[SELF], "b")
        add_stream(total, seed, -1)
    assert uniform(total)
    # And its shares cannot even be opened by those who were asked something else.
    with pytest.raises(PrivacyError, match="not sealed by it for b in this round"):
        five.tell("b", five.names)
