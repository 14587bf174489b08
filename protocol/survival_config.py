"""The sections of a study that say what survival is predicted from, and by what."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from protocol.training_config import LocalTraining, Network, Strategy, check_together
from protocol.yaml_files import Frozen

__all__ = ["Prognosis", "Regression"]

MAX_GRID_POINTS = 600


class Prognosis(Frozen):
    """The federated survival network, what it sees, and its training.

    Attributes
    ----------
    head : str
        What the network's outputs mean and what is minimised, by its name in
        ``shared_models.heads.HEADS``.
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
    penalty, l1_ratio : float
        Elastic net of the standardised coefficients, per patient: ``n penalty (l1_ratio |beta|_1 +
        (1 - l1_ratio) |beta|^2 / 2)`` is taken from the log-likelihood. 0: none.
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
    penalty: float = Field(0.0, ge=0)
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
