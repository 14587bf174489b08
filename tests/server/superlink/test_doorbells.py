"""Bells ring for those who listen, and are kept for nobody else."""

import asyncio

from server.superlink.doorbells import Doorbells


def test_all_who_listen_hear_it_and_a_bell_goes_with_its_last_listener() -> None:
    bells = Doorbells()
    with bells.listening(1) as first, bells.listening(1) as second, bells.listening(2) as other:
        assert first is second
        assert len(bells) == 2
        bells.ring(1)
        assert first.is_set() and not other.is_set()
        with bells.listening(1) as later:
            assert not later.is_set()
    assert len(bells) == 0


def test_who_leaves_late_takes_no_bell_of_another_with_them() -> None:
    bells = Doorbells()
    early = bells.listening(1)
    early.__enter__()
    bells.ring(1)
    with bells.listening(1) as later:
        early.__exit__(None, None, None)
        bells.ring(1)
        assert later.is_set()
    assert len(bells) == 0


def test_what_nobody_waits_for_is_not_kept() -> None:
    bells = Doorbells()
    bells.ring("nothing")
    assert len(bells) == 0
    with bells.listening("nothing") as bell:
        assert isinstance(bell, asyncio.Event) and not bell.is_set()
