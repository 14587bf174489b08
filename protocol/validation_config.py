"""The sections of a study that say on whom and how its models are judged."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protocol.yaml_files import Frozen

__all__ = ["Design", "HoldOut", "Validation"]

Design = Literal["leave-one-hospital-out", "hospital-matrix", "bootstrap"]


class HoldOut(Frozen):
    """Which patients of a training hospital are kept for internal validation: fold k of n."""

    fold: int = Field(0, ge=0)
    num_folds: int = Field(5, ge=2)

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.fold >= self.num_folds:
            raise ValueError(f"fold {self.fold} of {self.num_folds} does not exist")
        return self


class Validation(Frozen):
    """How the models are judged.

    Attributes
    ----------
    bootstrap : int
        Replicates of every interval.
    calibration_groups, risk_groups : int
        Groups of predicted risk for observed against predicted, and for survival curves.
    horizons_months : tuple of float
        When AUC, Brier score and calibration are looked at, months, within the time grid; by
        default its end.
    score_bins : int
        Bins of predicted risk from which pairs across hospitals are counted. More bins narrow the
        bounds of the C-index, as far as the hospitals' own minimum leaves bins.
    thresholds : tuple of float
        Risks, in (0, 1), from which a patient would be treated: the points of the decision curve.
    subgroups : bool
        Whether the models are also judged by vendor, field strength, sex and age band.
    designs : tuple of {"leave-one-hospital-out", "hospital-matrix", "bootstrap"}
        What is run after the study itself: every training hospital left out once; every training
        hospital alone, judged at each; the Cox regression's optimism by refitting it to resampled
        patients.
    optimism_replicates : int
        Refits of the design ``bootstrap``; 0 gives the apparent index alone.
    """

    bootstrap: int = Field(200, ge=0, le=10_000)
    calibration_groups: int = Field(5, ge=2, le=20)
    risk_groups: int = Field(3, ge=2, le=5)
    horizons_months: tuple[Annotated[float, Field(gt=0, le=600)], ...] = Field((), max_length=6)
    score_bins: int = Field(200, ge=2, le=1000)
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), min_length=1, max_length=20
    )
    subgroups: bool = True
    designs: tuple[Design, ...] = ()
    optimism_replicates: int = Field(100, ge=0, le=1000)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name in ("horizons_months", "thresholds"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name} must rise")
        return self

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.designs)) < len(self.designs):
            raise ValueError("a design stands twice; name each once")
        return self
