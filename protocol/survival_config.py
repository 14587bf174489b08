"""The sections of a study that say what survival is predicted from, and by what."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from protocol.training_config import LocalTraining, Network, Strategy, check_together
from protocol.yaml_files import Frozen

__all__ = ["COX_WEIGHTS", "Prognosis", "Regression"]

MAX_GRID_POINTS = 600
MAX_PENALTIES = 30
COX_WEIGHTS = {"cox_stratified": "events", "cox_time": "events", "cox_two_phase": "events"}
"""What a hospital's reply weighs, by Cox head."""
CauseName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 _-]{0,39}$")]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prognosis(Frozen):
    """The federated survival network, what it sees, and its training.

    Attributes
    ----------
    head : str
        What the network's outputs mean and what is minimised, by its name in
        ``shared_models.heads.HEADS`` or ``COX_HEADS``. The latter weigh hospitals by events, and
        ``cox_two_phase`` takes one step a round by ``strategy`` (``fedadam`` unless it says
        otherwise) and nothing of ``training``.
    covariates : tuple of str
        Names of the common data dictionary; a hospital that lacks one sends it as missing.
    measurements : tuple of str
        Quantities of the measure stage, e.g. ``lvef``, ``scar_percent``.
    num_intervals : int
        Intervals of the discrete-time grid.
    crop_px : int
        Side of the square around the segmented left ventricle that the network sees, pixels.
    max_slices : int
        Slices the network sees; of a longer stack those nearest the middle of the ventricle.
    intervals : {"equal", "events"}
        ``equal``: all as wide. ``events``: so that the surveyed Kaplan-Meier curve falls by the
        same amount over each, which makes them narrow where many have the event.
    grid_end : {"at_risk", "follow_up"}
        ``at_risk``: the grid ends where too few patients remain at risk. ``follow_up``: it reaches
        the last surveyed follow-up, so that no curve is constant while anybody is followed; the
        last interval then rests on few patients, and models are judged up to where enough remain.
    causes : tuple of str
        Of the head ``competing_risks``: what its kinds of event are called, the event of interest
        (1 in the hospitals' tables) first, then the competing one (2).
    max_risk_set : int
        Of Cox heads: patients of one hospital that are compared at once. A hospital with more
        trains in batches of nearly equal size; ``training.batch_size`` is not theirs.
    max_horizon_months : float
        Nothing is surveyed beyond, so the grid ends here at the latest.
    """

    network: Network = Network(name="prognosis")
    head: str = Field("logistic_hazard", pattern=r"^[a-z_]{1,64}$")
    covariates: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    num_intervals: int = Field(10, ge=2, le=60)
    intervals: Literal["equal", "events"] = "equal"
    grid_end: Literal["at_risk", "follow_up"] = "at_risk"
    crop_px: int = Field(64, ge=16, le=256, multiple_of=16)
    max_slices: int = Field(12, ge=1, le=32)
    max_horizon_months: float = Field(60.0, gt=0, le=600)
    rounds: int = Field(20, ge=1)
    training: LocalTraining = LocalTraining()
    strategy: Strategy = Strategy()
    max_risk_set: int = Field(4096, ge=64, le=100_000)
    causes: tuple[CauseName, CauseName] = ("event", "competing event")

    @model_validator(mode="before")
    @classmethod
    def _cox_strategy(cls, values: Any) -> Any:
        """Give Cox heads their own defaults, which a study may write out but not contradict."""
        if not isinstance(values, dict) or values.get("head") not in COX_WEIGHTS:
            return values
        given = values.get("strategy", {})
        if not isinstance(given, dict):
            return values
        own = {"name": "fedadam"} if values["head"] == "cox_two_phase" else {}
        weight = COX_WEIGHTS[values["head"]]
        return {**values, "strategy": {**own, "weight_by": weight, **given}}

    @property
    def num_causes(self) -> int:
        """Kinds of event the network tells apart."""
        return len(self.causes) if self.head == "competing_risks" else 1

    def network_options(self) -> dict[str, Any]:
        """Return the network's options with the sizes that follow from the rest of the section."""
        num_tabular = len(self.covariates) + len(self.measurements)
        return {
            **self.network.options,
            "num_tabular": num_tabular,
            "num_intervals": self.num_intervals,
            "head": self.head,
        }

    @model_validator(mode="after")
    def _together(self) -> Self:
        check_together(self.training, self.strategy)
        return self

    @model_validator(mode="after")
    def _two_causes(self) -> Self:
        if len(set(self.causes)) < len(self.causes) or "censored" in self.causes:
            raise ValueError("causes need two different names, none of them censored")
        return self

    @model_validator(mode="after")
    def _weighed(self) -> Self:
        weight = COX_WEIGHTS.get(self.head)
        if weight is not None and self.strategy.weight_by != weight:
            raise ValueError(
                f"the head {self.head} weighs hospitals by events, which its likelihood is a sum "
                "over; set strategy.weight_by to events or leave it out"
            )
        if weight is not None and self.strategy.name == "scaffold":
            raise ValueError(
                f"the head {self.head} takes no step at a hospital without events, which then has "
                "no control variate for scaffold; choose another strategy"
            )
        return self

    @model_validator(mode="after")
    def _one_head(self) -> Self:
        if self.network.options.get("head", self.head) != self.head:
            raise ValueError("the network's options name another head; write prognosis.head only")
        return self


class Regression(Frozen):
    """The federated Cox regression: what is fitted, to whom, in which form.

    Attributes
    ----------
    covariates, measurements : tuple of str
        As in `Prognosis`.
    patients : {"training", "all"}
        ``training`` leaves the held-out patients out, so that the fit can be the baseline of a
        network; ``all`` is the analysis of everybody, for inference.
    form : {"stratified", "grid"}
        ``stratified``: every hospital has its own baseline hazard, and only summed gradients and
        Hessians leave. ``grid``: one baseline hazard, from risk-set sums on a common time grid.
    step_months, horizon_months : float
        Width of the grid's cells and its end, months, at most 600 cells. Times are rounded up to
        its points, which is exact where they are whole multiples already; whoever is followed
        beyond the end is censored there. The stratified form has no grid.
    max_coarse_months : float
        Longest span over which a hospital may move its times together, so that no change between
        two points of the grid rests on fewer patients than its own minimum. The fit is then no
        longer exact; 0 has such a hospital refuse instead.
    ties : {"efron", "breslow"}
        How tied event times are counted.
    penalty : float, "auto" or tuple of float
        Elastic net of the standardised coefficients, per patient: ``n penalty (l1_ratio |beta|_1 +
        (1 - l1_ratio) |beta|^2 / 2)`` is taken from the log-likelihood. 0: none. Of several, and
        of a path that follows from the sums with ``auto``, cross-validation chooses.
    l1_ratio : float
        0 ridge .. 1 lasso.
    fold_by : {"patients", "hospitals"}
        What cross-validation leaves out: a share of each hospital's patients, which the hospital
        draws and keeps to itself (a hospital too small for that goes into one fold as a whole), or
        one hospital at a time. The pooled form can only leave out hospitals: the difference of two
        sets of risk-set sums would be those of single patients.
    folds : int
        Folds of patients.
    missing : {"complete", "indicator", "impute"}
        ``complete`` leaves patients with a missing covariate out; ``indicator`` sets them to the
        consortium's mean and adds a 0/1 covariate of missingness; ``impute`` is multiple imputation
        by chained equations, with Rubin's rules.
    imputations, iterations : int
        Imputed data sets, and passes over the covariates in each.
    max_rounds : int
        How often the hospitals are asked before the fit is given up.
    tolerance : float
        Ends when no coefficient would move by more, per standard deviation of its covariate.
    """

    covariates: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    patients: Literal["training", "all"] = "training"
    form: Literal["stratified", "grid"] = "stratified"
    step_months: float = Field(1.0, gt=0, le=60)
    horizon_months: float = Field(120.0, gt=0, le=600)
    max_coarse_months: float = Field(0.0, ge=0, le=600)
    ties: Literal["efron", "breslow"] = "efron"
    penalty: Strength | Literal["auto"] | tuple[Strength, ...] = 0.0
    fold_by: Literal["patients", "hospitals"] = "patients"
    folds: int = Field(5, ge=2, le=20)
    l1_ratio: float = Field(0.0, ge=0, le=1)
    missing: Literal["complete", "indicator", "impute"] = "complete"
    imputations: int = Field(10, ge=2, le=100)
    iterations: int = Field(5, ge=1, le=20)
    max_rounds: int = Field(25, ge=1, le=100)
    tolerance: float = Field(1e-9, gt=0, le=1e-2)

    @property
    def names(self) -> tuple[str, ...]:
        """What is regressed on, in the order of the columns: measurements, then covariates."""
        return (*self.measurements, *self.covariates)

    @property
    def chooses_penalty(self) -> bool:
        """Whether the penalty is chosen by cross-validation."""
        return not isinstance(self.penalty, float)

    @property
    def grid_months(self) -> tuple[float, ...]:
        """Points of the grid, right ends of its cells, up to the horizon or just beyond."""
        points = math.ceil(self.horizon_months / self.step_months - 1e-9)
        return tuple(self.step_months * (k + 1) for k in range(points))

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.horizon_months / self.step_months > MAX_GRID_POINTS:
            raise ValueError(f"the grid has more than {MAX_GRID_POINTS} cells; widen step_months")
        if len(set(self.names)) < len(self.names):
            raise ValueError("a covariate stands twice; name each once")
        if self.missing == "impute" and self.penalty and self.l1_ratio:
            raise ValueError("a lasso has no standard errors to pool; set l1_ratio to 0")
        return self

    @model_validator(mode="after")
    def _choosable(self) -> Self:
        if not self.chooses_penalty:
            return self
        listed = self.penalty if isinstance(self.penalty, tuple) else (0.0, 1.0)
        if not 2 <= len(listed) <= MAX_PENALTIES or len(set(listed)) < len(listed):
            raise ValueError(
                f"penalty lists {len(listed)} candidates; give 2 to {MAX_PENALTIES} different ones"
            )
        if self.form == "grid" and self.fold_by == "patients":
            raise ValueError(
                "folds of patients could be told apart to single patients in the risk-set sums of "
                "the form grid; set fold_by to hospitals"
            )
        if self.missing == "impute":
            raise ValueError(
                "a penalty cannot be chosen for imputed data; set missing to complete or "
                "indicator, or write one penalty"
            )
        return self
