"""What a verification says: one line a thing, fine or the first thing that is wrong with it."""

from collections.abc import Callable
from typing import NamedTuple

from protocol.errors import ConcorsError

__all__ = ["Check", "examined"]


class Check(NamedTuple):
    """One thing that was verified.

    Attributes
    ----------
    what : str
        E.g. ``"report.html"``.
    good : bool
    told : str
        What was found, or what is wrong and what to do.
    """

    what: str
    good: bool
    told: str

    def __str__(self) -> str:
        return f"{'OK   ' if self.good else 'WRONG'} {self.what}: {self.told}"


def examined(what: str, look: Callable[[], str]) -> Check:
    """Return what a look at a thing told, or the sentence of the error it ended in."""
    try:
        return Check(what, True, look())
    except ConcorsError as error:
        return Check(what, False, error.sentence)
    except OSError as error:
        return Check(what, False, f"it cannot be read ({error.strerror}); put it back.")
