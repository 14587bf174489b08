"""How an attempt at a run ended, in the server app's own words: ``ended.json`` in the run's folder.

A server app that was killed leaves no such file, and that is how its supervisor tells the two
apart: what ended with a sentence of ours waits for a person, what was killed is taken up again.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from deployment.private_files import write_atomic
from protocol.documents import check_keys, decode, encode
from protocol.errors import PayloadError

__all__ = ["Outcome", "read_outcome", "write_outcome"]

FILE = "ended.json"


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended.

    Attributes
    ----------
    flower_run : int
        Flower's id of the attempt.
    code, sentence : str
        Of the error; empty when the study is finished.
    """

    flower_run: int
    code: str = ""
    sentence: str = ""


def write_outcome(run_dir: Path, outcome: Outcome) -> None:
    """Say how an attempt ended."""
    text = encode(asdict(outcome), "An outcome")
    write_atomic(run_dir / FILE, text.encode() + b"\n")


def read_outcome(run_dir: Path, flower_run: int) -> Outcome | None:
    """Return how an attempt ended; None where it has not said so."""
    path = run_dir / FILE
    if not path.is_file():
        return None
    try:
        document = decode(path.read_text(encoding="utf-8"), FILE)
        check_keys(document, frozenset(Outcome.__dataclass_fields__), FILE)
    except (PayloadError, UnicodeDecodeError):
        return None  # the next attempt writes it again
    outcome = Outcome(**document)
    return outcome if outcome.flower_run == flower_run else None
