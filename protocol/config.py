"""A study: one YAML file, checked once at the door, frozen afterwards.

The study is the consortium's; it names no path, device or limit of a hospital (those stand in the
hospital's own ``site.yaml``, which the centre neither sees nor sets).
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from protocol.errors import ConfigError

__all__ = [
    "Design",
    "HoldOut",
    "LocalTraining",
    "Network",
    "Preprocessing",
    "Prognosis",
    "Regression",
    "Rounds",
    "Segmentation",
    "Stage",
    "Strategy",
    "Study",
    "Validation",
    "load_study",
    "parse",
    "read_yaml",
]

T = TypeVar("T", bound=BaseModel)

MAX_YAML_BYTES = 256 * 1024
MAX_GRID_POINTS = 600
SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Stage = Literal["survey", "segment", "measure", "regression", "prognosis", "validate"]
STAGES: tuple[Stage, ...] = (
    "survey",
    "segment",
    "measure",
    "regression",
    "prognosis",
    "validate",
)
Design = Literal["leave-one-hospital-out", "hospital-matrix", "bootstrap"]
# The stages of a study that names none.
PIPELINE: tuple[Stage, ...] = ("survey", "segment", "measure", "prognosis", "validate")


class Frozen(BaseModel):
    """A section of a configuration file: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Hospitals(Frozen):
    """Who takes part, each hospital in one role.

    Attributes
    ----------
    train : tuple of str
        Update the models, and validate them on their held-out patients.
    internal : tuple of str
        Do not train here, but validate on their held-out patients only: the members of a pooled
        archive, so that pooled and federated training are judged on the same people.
    external : tuple of str
        Never train; validate on all their patients.
    """

    train: tuple[SiteName, ...] = Field(min_length=1)
    internal: tuple[SiteName, ...] = ()
    external: tuple[SiteName, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every hospital, in the order in which sums are added."""
        return (*self.train, *self.internal, *self.external)

    @property
    def validating(self) -> tuple[str, ...]:
        """The hospitals whose figures are reported."""
        return (*(self.internal or self.train), *self.external)

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        twice = sorted(name for name, count in Counter(self.all).items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice; name each hospital once")
        return self


class Preprocessing(Frozen):
    """How every hospital brings its stacks to common ground.

    Attributes
    ----------
    spacing_mm : float
        In-plane pixel spacing after resampling, mm.
    crop_px : int
        Side of the square crop centred on the left ventricle, pixels at ``spacing_mm``.
    percentiles : tuple of float
        Intensity percentiles of a series that are mapped to 0 and 1.
    """

    spacing_mm: float = Field(1.5, gt=0.2, le=5.0)
    crop_px: int = Field(128, ge=32, le=512, multiple_of=16)
    percentiles: tuple[float, float] = (1.0, 99.0)


class HoldOut(Frozen):
    """Which patients of a training hospital are kept for internal validation: fold k of n."""

    fold: int = Field(0, ge=0)
    num_folds: int = Field(5, ge=2)

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.fold >= self.num_folds:
            raise ValueError(f"fold {self.fold} of {self.num_folds} does not exist")
        return self


class Network(Frozen):
    """A network by its name in ``shared_models.networks.NETWORKS`` and its keyword arguments."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class LocalTraining(Frozen):
    """What a hospital does with the global model in one round.

    Attributes
    ----------
    epochs : int
        Passes over the hospital's own training records.
    learning_rate : float
        Peak of the first round; the peak falls over rounds by ``round_decay``.
    final_fraction : float
        Within a round the rate follows a cosine down to this share of the peak. The default 1 keeps
        it: averaging the hospitals settles what a falling rate settles elsewhere.
    proximal_mu : float
        Weight of FedProx's ``mu/2 ||w - w_global||^2``; 0 is FedAvg.
    """

    epochs: int = Field(1, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    final_fraction: float = Field(1.0, ge=0, le=1)
    warmup_fraction: float = Field(0.0, ge=0, lt=1)
    round_decay: Literal["none", "cosine"] = "cosine"
    grad_clip_norm: float = Field(5.0, gt=0)
    proximal_mu: float = Field(0.0, ge=0)
    augment: bool = True


class Strategy(Frozen):
    """An aggregation rule by its name in ``strategies.STRATEGIES`` and its keyword arguments."""

    name: str = "fedavg"
    options: dict[str, float] = Field(default_factory=dict)
    weight_by: Literal["patients", "events"] = "patients"


class Segmentation(Frozen):
    """The federated segmentation network and its training."""

    network: Network = Network(name="unet")
    rounds: int = Field(20, ge=1)
    training: LocalTraining = LocalTraining()
    strategy: Strategy = Strategy()


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
    max_horizon_months : float
        The grid ends here or where too few patients remain at risk, whichever is earlier.
    """

    network: Network = Network(name="prognosis")
    head: str = Field("logistic_hazard", pattern=r"^[a-z_]{1,64}$")
    covariates: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    num_intervals: int = Field(10, ge=2, le=60)
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


class Rounds(Frozen):
    """How long the centre waits, and for how many.

    Attributes
    ----------
    join_s : float
        Longest wait for the hospitals to appear before the study starts, s.
    deadline_s : float
        Longest wait for the replies of one round, s.
    quorum : float
        Share of the asked hospitals that must reply with a valid update, in (0, 1].
    max_reply_mb : float
        A reply whose arrays are larger is refused.
    """

    join_s: float = Field(600.0, gt=0)
    deadline_s: float = Field(3600.0, gt=0)
    quorum: float = Field(1.0, gt=0, le=1)
    max_reply_mb: float = Field(1024.0, gt=0)


class Study(Frozen):
    """One study: who, what, in which order, from which seed."""

    name: SiteName
    seed: int = Field(ge=0)
    hospitals: Hospitals
    stages: tuple[Stage, ...] = PIPELINE
    preprocessing: Preprocessing = Preprocessing()
    holdout: HoldOut = HoldOut()
    segment: Segmentation = Segmentation()
    regression: Regression = Regression()
    prognosis: Prognosis = Prognosis()
    validate_: Validation = Field(Validation(), alias="validate")
    rounds: Rounds = Rounds()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        order = [stage for stage in STAGES if stage in self.stages]
        if list(self.stages) != order:
            raise ValueError(f"stages must stand once each in the order {', '.join(STAGES)}")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for stage, section in (("regression", self.regression), ("prognosis", self.prognosis)):
            if stage not in self.stages:
                continue
            if section.measurements and "measure" not in self.stages:
                raise ValueError(
                    f"{stage}.measurements need the stage measure; add it, or use covariates only"
                )
        if "regression" in self.stages:
            if not self.regression.names:
                raise ValueError("the stage regression has no covariate; name some in regression")
            # The measure stage computes what prognosis lists.
            strange = set(self.regression.measurements) - set(self.prognosis.measurements)
            if strange:
                raise ValueError(
                    f"regression.measurements has {min(strange)}, which prognosis.measurements "
                    "has not; list it there too"
                )
        return self

    @model_validator(mode="after")
    def _designed(self) -> Self:
        designs = self.validate_.designs
        if "bootstrap" in designs and "regression" not in self.stages:
            raise ValueError(
                "the design bootstrap refits the Cox regression; add the stage regression"
            )
        if "bootstrap" in designs and self.regression.missing == "impute":
            raise ValueError(
                "the design bootstrap cannot refit an imputed regression; set regression.missing "
                "to complete or indicator"
            )
        others = [design for design in designs if design != "bootstrap"]
        if others and not {"segment", "regression", "prognosis"} & set(self.stages):
            raise ValueError(f"the design {others[0]} has no model to judge; add a stage that fits")
        if others and (len(self.hospitals.train) < 2 or self.hospitals.internal):
            raise ValueError(
                f"the design {others[0]} needs two training hospitals at least, and none internal"
            )
        return self

    @property
    def covariates(self) -> tuple[str, ...]:
        """Covariates any stage uses: the prognosis stage's, then what regression adds."""
        names = (*self.prognosis.covariates, *self.regression.covariates)
        return tuple(dict.fromkeys(names))


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds, by ``yaml.safe_load`` and without aliases.

    Raises
    ------
    ConfigError
        If the file is absent, larger than 256 KiB, not YAML, or uses anchors and aliases (a few
        hundred bytes of aliases can unfold to gigabytes).
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path.name} is larger than 256 KiB; a configuration is not.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path.name} cannot be read ({error.strerror}); check the path."
        ) from error
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ConfigError(f"{path.name} uses a YAML alias; write the value out instead.")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path.name} is not valid YAML{where}; mend the syntax there."
        ) from error


def _place(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location) or "the top level"


def parse(model: type[T], values: Any, source: str) -> T:
    """Check ``values`` against a configuration class.

    Raises
    ------
    ConfigError
        One sentence naming the first key that is unknown, missing or of the wrong type, and how
        many more there are.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=False)
        more = f" (and {len(others)} more)" if others else ""
        if first["type"] == "extra_forbidden":
            *parents, key = first["loc"]
            problem = f"unknown key '{key}' in {_place(parents)}"
        else:
            problem = f"{_place(first['loc'])}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        raise ConfigError(
            f"{source}: {problem}{more}; correct the file and start again."
        ) from error


def load_study(path: Path) -> Study:
    """Read the ``study`` section of a YAML file.

    Raises
    ------
    ConfigError
        If the file cannot be read or a key or value is wrong.
    """
    values = read_yaml(path)
    if not isinstance(values, dict) or "study" not in values:
        raise ConfigError(f"{path.name} has no 'study' section; every study file starts with one.")
    return parse(Study, values["study"], path.name)
