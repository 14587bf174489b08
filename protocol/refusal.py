"""How a hospital says no: a code and one sentence of ours, in Flower's ``Error``."""

import re
from dataclasses import dataclass
from typing import Self

from flwr.app import Error

from protocol.errors import ConcorsError, PayloadError

__all__ = ["Refusal"]

MAX_SENTENCE = 500
REFUSAL_CODE = re.compile(r"E[1-9][0-9]{2}")

# Flower's own failures, for the operator; the text that comes with them may quote a foreign
# exception (and so a path or a patient) and is therefore never shown.
FLOWER_FAILURES = {
    1: "its app could not be loaded",
    2: "its app failed with an exception",
    3: "the request expired or was lost before it was read",
    4: "its reply expired or was lost",
    5: "its node is not connected",
    6: "a condition of its app was not met",
    7: "its node does not accept this app",
    8: "its app process ended without a reply",
}


@dataclass(frozen=True)
class Refusal:
    """Why a hospital did not do as asked: a code and one sentence of ours.

    Attributes
    ----------
    code : str
        ``"E"`` and three digits, as in `protocol.errors`.
    """

    code: str
    sentence: str

    @classmethod
    def of(cls, error: ConcorsError) -> Self:
        """Return the refusal that one of our own errors stands for."""
        return cls(error.code, error.sentence)

    def to_error(self) -> Error:
        """Return it as Flower carries errors: the number of the code, and the sentence."""
        if not REFUSAL_CODE.fullmatch(self.code):
            raise PayloadError(f"Refusal code {self.code!r} is not E and three digits; use one.")
        return Error(code=int(self.code[1:]), reason=self.sentence[:MAX_SENTENCE])

    @classmethod
    def from_error(cls, error: Error) -> Self:
        """Read an error reply; text that is not ours is replaced by what its code means."""
        if type(error.code) is int and 100 <= error.code <= 999:
            text = "".join(c if c.isprintable() else " " for c in error.reason or "")
            return cls(f"E{error.code}", text[:MAX_SENTENCE])
        meaning = FLOWER_FAILURES.get(error.code, "it failed in a way Flower does not explain")
        return cls("E502", f"The hospital did not reply because {meaning}; see its own log.")
