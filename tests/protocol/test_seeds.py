"""Random streams are named by what they are for."""

from itertools import product

from protocol.seeds import derive_seed, generator


def test_the_same_name_gives_the_same_stream() -> None:
    one = generator(7, "segment/train", round_index=3, site="a").random(4)
    two = generator(7, "segment/train", round_index=3, site="a").random(4)
    assert one.tobytes() == two.tobytes()


def test_every_part_of_the_name_matters() -> None:
    names = product((1, 2), ("x", "y"), (0, 1, 11), ("", "a", "1a"))
    seeds = [derive_seed(s, p, round_index=r, site=h) for s, p, r, h in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_fields_do_not_run_into_each_other() -> None:
    assert derive_seed(1, "ab", site="c") != derive_seed(1, "a", site="bc")
    assert derive_seed(1, "a", round_index=12) != derive_seed(11, "a", round_index=2)


def test_the_derivation_is_pinned() -> None:
    # A published study's seed must give the same streams in every later version.
    import hashlib

    message = b"1:1" + b"3:abc" + b"1:2" + b"4:site"
    expected = int.from_bytes(hashlib.sha256(message).digest()[:8], "big") >> 1
    assert derive_seed(1, "abc", round_index=2, site="site") == expected
