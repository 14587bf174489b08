"""Which parts of a study need each other, and which exclude each other.

Each rule raises a ``ValueError`` that says what to change; `protocol.config.Study` asks them all.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.survival_config import COX_WEIGHTS

if TYPE_CHECKING:
    from protocol.config import Study

__all__ = ["RULES"]


def _possible(study: "Study") -> None:
    for stage, section in (("regression", study.regression), ("prognosis", study.prognosis)):
        if stage not in study.stages:
            continue
        if section.measurements and "measure" not in study.stages:
            raise ValueError(
                f"{stage}.measurements need the stage measure; add it, or use covariates only"
            )


def _regressable(study: "Study") -> None:
    section = study.regression
    if "regression" not in study.stages:
        return
    if not section.names:
        raise ValueError("the stage regression has no covariate; name some in regression")
    by_hospital = section.fold_by == "hospitals"
    if section.chooses_penalty and by_hospital and len(study.hospitals.train) < 2:
        raise ValueError(
            "one training hospital cannot be left out for regression.penalty; set "
            "regression.fold_by to patients"
        )
    # The measure stage computes what prognosis lists.
    strange = set(section.measurements) - set(study.prognosis.measurements)
    if strange:
        raise ValueError(
            f"regression.measurements has {min(strange)}, which prognosis.measurements "
            "has not; list it there too"
        )


def _designed(study: "Study") -> None:
    designs = study.validate_.designs
    if "bootstrap" in designs and "regression" not in study.stages:
        raise ValueError("the design bootstrap refits the Cox regression; add the stage regression")
    if "bootstrap" in designs and study.regression.missing == "impute":
        raise ValueError(
            "the design bootstrap cannot refit an imputed regression; set regression.missing "
            "to complete or indicator"
        )
    others = [design for design in designs if design != "bootstrap"]
    if others and not {"segment", "regression", "prognosis"} & set(study.stages):
        raise ValueError(f"the design {others[0]} has no model to judge; add a stage that fits")
    if others and (len(study.hospitals.train) < 2 or study.hospitals.internal):
        raise ValueError(
            f"the design {others[0]} needs two training hospitals at least, and none internal"
        )


def _summable(study: "Study") -> None:
    section = study.secure_aggregation
    if section is None:
        return
    least = max(section.min_hospitals, section.threshold or 0)
    if len(study.hospitals.train) < least:
        raise ValueError(
            f"secure_aggregation needs {least} training hospitals and there are "
            f"{len(study.hospitals.train)}; name more, or leave it out"
        )
    everything = section.cover == "everything"
    for design in study.validate_.designs:
        if design != "bootstrap" or not everything:
            raise ValueError(
                f"the design {design} asks hospitals one by one, which secure_aggregation "
                "does not; leave it out"
            )
    for stage in ("sort", "segment", "prognosis"):
        strategy = getattr(study, stage).strategy
        if stage in study.stages and (strategy.name == "scaffold" or strategy.ask != "all"):
            raise ValueError(
                f"{stage}.strategy looks at the update of one hospital (scaffold, or one in "
                "turn), and secure_aggregation shows sums only; choose another"
            )


def _summable_head(study: "Study") -> None:
    section, head = study.secure_aggregation, study.prognosis.head
    if section is None:
        return
    everything = section.cover == "everything"
    if "prognosis" in study.stages and head in COX_WEIGHTS and not everything:
        raise ValueError(
            f"the head {head} needs sums over risk sets, which "
            "secure_aggregation covers only where it covers everything; choose another head"
        )
    if head == "cox_two_phase" and section.updates is not None:
        raise ValueError(
            "secure_aggregation.updates adds noise to updates, and the head cox_two_phase "
            "sends gradients; choose another head, or leave updates out"
        )


def _summable_regression(study: "Study") -> None:
    section, secure = study.regression, study.secure_aggregation
    if secure is None or "regression" not in study.stages:
        return
    if section.chooses_penalty and section.fold_by == "hospitals":
        raise ValueError(
            "secure_aggregation covers no penalty chosen by leaving hospitals out, whose "
            "difference shows each hospital; set regression.fold_by to patients"
        )
    plain = section.form != "stratified" or section.missing == "impute"
    if plain and secure.cover == "training":
        raise ValueError(
            "secure_aggregation covers the pooled form and imputation only where it covers "
            "everything; set secure_aggregation.cover, or fit the stratified form"
        )


def _compressible(study: "Study") -> None:
    compression = study.rounds.compression
    if not compression.is_used:
        return
    if study.secure_aggregation is not None:
        raise ValueError(
            "rounds.compression and secure_aggregation exclude each other: masks cancel only "
            "in the exact numbers of the field they are added in; set compression to none"
        )
    for stage in ("sort", "segment", "prognosis"):
        strategy = getattr(study, stage).strategy
        if stage in study.stages and strategy.name == "scaffold":
            raise ValueError(
                f"{stage}.strategy scaffold computes a hospital's control variate from its "
                "model at both ends, and a compressed model is not the hospital's own; set "
                "rounds.compression to none, or choose another strategy"
            )
        if stage in study.stages and strategy.ask != "all" and compression.down != "none":
            raise ValueError(
                f"{stage}.strategy asks one hospital in turn, which never has the model of the "
                "round before; set rounds.compression.down to none"
            )
    if "prognosis" in study.stages and study.prognosis.head == "cox_two_phase":
        raise ValueError(
            "the head cox_two_phase adds up exact gradients, not models; set "
            "rounds.compression to none, or choose another head"
        )


RULES: tuple[Callable[["Study"], None], ...] = (
    _possible,
    _regressable,
    _designed,
    _summable,
    _summable_head,
    _summable_regression,
    _compressible,
)
"""In the order in which they are asked; the first that is broken is reported."""
