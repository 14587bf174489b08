"""Which hospitals missed round after round, read from the history alone.

A hospital whose reply is left out once has had bad luck; one whose replies are left out again and
again has no part in the model, and whoever reads the study's figures must know.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from protocol.config import Rounds
from protocol.errors import QuorumError
from server.sums_fields import Frozen

__all__ = ["MissedRounds", "missed_in_a_row", "missed_rounds", "require_present"]


class MissedRounds(Frozen):
    """Rounds in a row in which one hospital was asked and nothing of it was counted.

    Attributes
    ----------
    first_round, last_round : int
        Of those in which it was asked, counted from 1.
    num_rounds : int
        How many it was asked in; less than their distance where hospitals are asked in turn.
    code, sentence : str
        Why, the last time.
    to_the_end : bool
        Whether it was still missing when the stage ended.
    """

    hospital: str
    stage: Literal["sort", "segment", "prognosis"]
    first_round: int
    last_round: int
    num_rounds: int
    code: str
    sentence: str
    to_the_end: bool


def _spells(history: Iterable[Mapping[str, Any]]) -> list[MissedRounds]:
    """Return every spell of misses, closed or open, in the order in which they ended."""
    open_: dict[str, MissedRounds] = {}
    closed: list[MissedRounds] = []
    for entry in history:
        for site in entry["sites"]:
            if site in open_:
                closed.append(open_.pop(site).model_copy(update={"to_the_end": False}))
        for site, refusal in sorted(entry["excluded"].items()):
            if site in entry["sites"]:
                # Its reply did count; what was refused was another message of the same round.
                continue
            before = open_.get(site)
            open_[site] = MissedRounds(
                hospital=site,
                stage=entry["stage"],
                first_round=before.first_round if before else entry["round"],
                last_round=entry["round"],
                num_rounds=before.num_rounds + 1 if before else 1,
                code=refusal["code"],
                sentence=refusal["sentence"],
                to_the_end=True,
            )
    return [*closed, *(open_[site] for site in sorted(open_))]


def missed_in_a_row(history: Iterable[Mapping[str, Any]]) -> dict[str, MissedRounds]:
    """Return, for each hospital that is missing now, since when.

    Parameters
    ----------
    history : iterable of RoundEntry
        Of one stage.
    """
    return {spell.hospital: spell for spell in _spells(history) if spell.to_the_end}


def missed_rounds(
    histories: Iterable[Iterable[Mapping[str, Any]]], max_missed: int
) -> tuple[MissedRounds, ...]:
    """Return every spell of ``max_missed`` rounds in a row or more, stage by stage.

    Parameters
    ----------
    histories : iterable
        One history a stage.
    max_missed : int
        From how many rounds on a spell counts, at least 1.
    """
    spells = (spell for history in histories for spell in _spells(history))
    return tuple(spell for spell in spells if spell.num_rounds >= max_missed)


def require_present(history: Iterable[Mapping[str, Any]], rounds: Rounds, what: str) -> None:
    """End the study if a hospital missed too many rounds in a row and the study says ``stop``.

    It is asked after a round whose checkpoint is on disk: a study that is resumed goes on with the
    next round, and is ended again only by what happens then.

    Parameters
    ----------
    history : iterable of RoundEntry
        Of one stage, the newest last.
    what : str
        The newest round, e.g. ``"Round 3 of segment"``.

    Raises
    ------
    QuorumError
        Naming each such hospital, how long it has been missing, and its last code and sentence.
    """
    if rounds.on_missing != "stop":
        return
    gone = [m for m in missed_in_a_row(history).values() if m.num_rounds >= rounds.max_missed]
    if not gone:
        return
    said = " and ".join(
        f"{m.hospital} missed {m.num_rounds} round{'s' if m.num_rounds > 1 else ''} in a row "
        f"({m.code} {m.sentence})"
        for m in gone
    )
    raise QuorumError(
        f"{what}: {said}, and the study ends at {rounds.max_missed}; mend this and resume, or set "
        "rounds.on_missing to warn to go on without."
    )
