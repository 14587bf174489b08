"""Who was asked to train round after round and had no part in the model, in sentences."""

from server.missed import MissedRounds
from server.results import Results

__all__ = ["missed_notes"]


def missed_notes(results: Results, *, to_the_end: bool) -> list[str]:
    """Return one sentence for every hospital that missed too many rounds in a row.

    Parameters
    ----------
    to_the_end : bool
        Those still missing when the stage ended, of which the model is without the newest of that
        hospital; else those that came back.
    """
    return [_sentence(spell) for spell in results.missed if spell.to_the_end == to_the_end]


def _sentence(spell: MissedRounds) -> str:
    if spell.first_round == spell.last_round:
        when = f"round {spell.first_round}"
    else:
        when = f"{spell.num_rounds} rounds in a row ({spell.first_round} to {spell.last_round})"
    end = "and was missing to the end" if spell.to_the_end else "and came back"
    return (
        f"{spell.hospital} missed {when} of the stage {spell.stage} {end}: {spell.code}, "
        f"{spell.sentence}"
    )
