"""A study: one YAML file, checked once at the door, frozen afterwards.

The study is the consortium's; it names no path, device or limit of a hospital (those stand in the
hospital's own ``site.yaml``, which the centre neither sees nor sets).
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protocol.compression_config import Compression
from protocol.errors import ConfigError
from protocol.privacy_config import PrivacyAsked
from protocol.secure_config import SecureAggregation
from protocol.study_rules import RULES
from protocol.survival_config import Prognosis, Regression
from protocol.training_config import LocalTraining, Network, Strategy, check_together
from protocol.validation_config import HoldOut, Validation
from protocol.yaml_files import Frozen, parse, read_yaml

__all__ = [
    "Hospitals",
    "Preprocessing",
    "Rounds",
    "Segmentation",
    "Sorting",
    "Stage",
    "Study",
    "load_study",
]

SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Stage = Literal["survey", "sort", "segment", "measure", "regression", "prognosis", "validate"]
STAGES: tuple[Stage, ...] = (
    "survey",
    "sort",
    "segment",
    "measure",
    "regression",
    "prognosis",
    "validate",
)
# The stages of a study that names none.
PIPELINE: tuple[Stage, ...] = ("survey", "segment", "measure", "prognosis", "validate")


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


class Segmentation(Frozen):
    """The federated segmentation network and its training."""

    network: Network = Network(name="unet")
    rounds: int = Field(20, ge=1)
    training: LocalTraining = LocalTraining()
    strategy: Strategy = Strategy()

    @model_validator(mode="after")
    def _together(self) -> Self:
        check_together(self.training, self.strategy)
        return self


class Sorting(Frozen):
    """The federated network that sorts series where the rules are unsure, and its training."""

    network: Network = Network(name="sorting")
    rounds: int = Field(12, ge=1)
    training: LocalTraining = LocalTraining(
        epochs=4, learning_rate=6e-3, augment=False, round_decay="cosine"
    )
    strategy: Strategy = Strategy()

    @model_validator(mode="after")
    def _by_patients(self) -> Self:
        if self.strategy.weight_by != "patients":
            raise ValueError("sort.strategy.weight_by is not patients; series have no events")
        return self


class Rounds(Frozen):
    """How long the centre waits, and for how many.

    Attributes
    ----------
    join_s : float
        Longest wait for the hospitals to appear before the study starts, s.
    deadline_s : float
        Longest wait for the replies of one round, s.
    rejoin_s : float
        Longest wait for a hospital whose node was lost on the way to come back and go on, s.
    quorum : float
        Share of the asked hospitals that must reply with a valid update, in (0, 1].
    max_reply_mb : float
        A reply whose arrays are larger is refused.
    max_missed : int
        From how many missed training rounds in a row on a hospital is missing, although the others
        make the quorum.
    on_missing : {"stop", "warn"}
        What follows then: the study ends with a sentence and can be resumed, or
        it goes on and its results, its report and its exit code say who was missing.
    compression : Compression
        In how many bytes models travel; by default as they are.
    """

    join_s: float = Field(600.0, gt=0)
    deadline_s: float = Field(3600.0, gt=0)
    rejoin_s: float = Field(120.0, ge=0)
    quorum: float = Field(1.0, gt=0, le=1)
    max_reply_mb: float = Field(1024.0, gt=0)
    max_missed: int = Field(3, ge=1)
    on_missing: Literal["stop", "warn"] = "stop"
    compression: Compression = Compression()


class Study(Frozen):
    """One study: who, what, in which order, from which seed.

    Attributes
    ----------
    ranges : dict of str to (low, high)
        Of covariates and measurements, in their units: between which values hospitals that add
        noise take means. For what is in the data dictionary there are ranges already.
    """

    name: SiteName
    seed: int = Field(ge=0)
    hospitals: Hospitals
    stages: tuple[Stage, ...] = PIPELINE
    preprocessing: Preprocessing = Preprocessing()
    holdout: HoldOut = HoldOut()
    privacy: PrivacyAsked = PrivacyAsked()
    sort: Sorting = Sorting()
    segment: Segmentation = Segmentation()
    regression: Regression = Regression()
    prognosis: Prognosis = Prognosis()
    validate_: Validation = Field(Validation(), alias="validate")
    rounds: Rounds = Rounds()
    secure_aggregation: SecureAggregation | None = None
    ranges: dict[str, tuple[Finite, Finite]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        wrong = [name for name, (low, high) in self.ranges.items() if low >= high]
        if wrong:
            raise ValueError(f"ranges.{wrong[0]} does not rise from low to high")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        order = [stage for stage in STAGES if stage in self.stages]
        if list(self.stages) != order:
            raise ValueError(f"stages must stand once each in the order {', '.join(STAGES)}")
        return self

    @model_validator(mode="after")
    def _surveyed(self) -> Self:
        if "sort" in self.stages and "survey" not in self.stages:
            raise ValueError("the stage sort needs the counts of the stage survey; add it")
        return self

    @model_validator(mode="after")
    def _together(self) -> Self:
        for rule in RULES:
            rule(self)
        return self

    @property
    def covariates(self) -> tuple[str, ...]:
        """Covariates any stage uses: the prognosis stage's, then what regression adds."""
        names = (*self.prognosis.covariates, *self.regression.covariates)
        return tuple(dict.fromkeys(names))


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
