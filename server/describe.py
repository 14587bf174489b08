"""What a study will do and send, as a table for the coordinator, and the hash that names it."""

from rich.table import Table

from protocol.config import Segmentation, Sorting, Study
from protocol.documents import digest
from protocol.survival_config import Prognosis
from server.manifest import traffic

__all__ = ["describe", "hash_line"]


def describe(study: Study) -> Table:
    """Return who takes part, the stages, the traffic and the patience of a study."""
    table = Table(title=f"Study {study.name}, seed {study.seed}", show_header=False)
    table.add_row("train", ", ".join(study.hospitals.train))
    table.add_row("external", ", ".join(study.hospitals.external) or "none")
    table.add_row("stages", ", ".join(study.stages))
    sections: dict[str, Sorting | Segmentation | Prognosis] = {
        "sort": study.sort,
        "segment": study.segment,
        "prognosis": study.prognosis,
    }
    for stage, each in traffic(study).items():
        section = sections[stage]
        sent = (
            f"{_megabytes(each.up_mb)} MB down and up"
            if each.down_mb == each.up_mb
            else f"{_megabytes(each.down_mb)} MB down and {_megabytes(each.up_mb)} MB up"
        )
        asked = "one hospital in turn" if section.strategy.ask == "in turn" else "all hospitals"
        table.add_row(
            stage,
            f"{section.network.name}, {section.rounds} rounds of {section.training.epochs} "
            f"epochs of {asked}, {section.strategy.name} by {section.strategy.weight_by}; "
            f"{sent} per hospital and round",
        )
    compression = study.rounds.compression
    if compression.is_used:
        share = (
            f" (top-k: {compression.fraction:g})" if "top-k" in vars(compression).values() else ""
        )
        how = f"{compression.down} down, {compression.up} up{share}"
        table.add_row("compression", f"{how}; the first model goes down whole")
    rounds = study.rounds
    table.add_row("waits", f"{rounds.join_s:g} s to join, {rounds.deadline_s:g} s a round")
    table.add_row("quorum", f"{rounds.quorum:.0%} of the hospitals asked")
    follows = {"stop": "ends the study", "warn": "is told, and the study goes on"}
    table.add_row(
        "missing", f"{rounds.max_missed} rounds in a row, which {follows[rounds.on_missing]}"
    )
    return table


def _megabytes(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def hash_line(study: Study) -> str:
    """Return the line with the study's hash, by which hospitals approve it in their policy."""
    return f"study hash: {digest(study.model_dump(mode='json', by_alias=True))}"
