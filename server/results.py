"""What a study found: the one value that is written to ``results.json`` and drawn by the report.

Everything in it is a sum, a count or a loss; there is no field a patient's row would fit into.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from protocol.errors import PayloadError
from protocol.stats import (
    AgreementSums,
    Calibration,
    LifeTable,
    Moments,
    OverlapSums,
    PairCounts,
)
from protocol.stats.confusion import ConfusionSums
from server.baseline_results import BaselineResults
from server.cause_results import CauseRow
from server.design_results import DesignResults, SubgroupRow
from server.evaluation_results import RoleEvaluation, SiteEvaluation
from server.missed import MissedRounds
from server.regression_results import RegressionResults
from server.sums_fields import ENCODE, Frozen, decoder

__all__ = [
    "ALL_TOGETHER",
    "Arm",
    "BrokenLog",
    "Hospital",
    "Oddity",
    "Oracle",
    "Results",
    "SiteValidation",
    "StudyFacts",
    "Training",
    "load_results",
    "save_results",
]

Count = Annotated[int, Field(ge=0)] | None


MomentsField = Annotated[Moments, BeforeValidator(decoder(Moments)), ENCODE]
OverlapField = Annotated[OverlapSums, BeforeValidator(decoder(OverlapSums)), ENCODE]
AgreementField = Annotated[AgreementSums, BeforeValidator(decoder(AgreementSums)), ENCODE]
PairsField = Annotated[PairCounts, BeforeValidator(decoder(PairCounts)), ENCODE]
LifeTableField = Annotated[LifeTable, BeforeValidator(decoder(LifeTable)), ENCODE]
ConfusionField = Annotated[ConfusionSums, BeforeValidator(decoder(ConfusionSums)), ENCODE]
CalibrationField = Annotated[Calibration, BeforeValidator(decoder(Calibration)), ENCODE]


class StudyFacts(Frozen):
    """What identifies a run.

    Attributes
    ----------
    models : dict of str to str
        SHA-256 of the released weights by stage, e.g. ``{"segment": "9f..."}``.
    simulated : bool
        Whether the hospitals are phantoms; the report says so on its first line.
    min_cell : int
        Counts below this number of patients were not sent.
    horizon_months : float or None
        Horizon of calibration and truncation of the C-index, months.
    cuts_months : tuple of float
        Right ends of the survival network's intervals, months; without them its outputs mean
        nothing. Empty where no network was trained.
    """

    name: str
    seed: int
    code_version: str
    config_sha256: str = ""
    models: dict[str, str] = Field(default_factory=dict)
    simulated: bool = False
    min_cell: int = Field(5, ge=1)
    horizon_months: float | None = None
    cuts_months: tuple[float, ...] = ()


class Hospital(Frozen):
    """One row of the cohort table; a count of ``None`` was withheld as smaller than ``min_cell``.

    Attributes
    ----------
    covariates : Moments or None
        Mean, sd and missing count of each covariate in the units of ``units``.
    refused : dict of str to int or None
        Series or patients the hospital could not use, by kind.
    together : tuple of str
        The hospitals whose secure sum this row is; empty for a hospital's own.
    noise_sd : float or None
        Standard deviation of the noise on the hospital's counts, patients; None if they are exact.
    """

    name: str
    role: Literal["train", "external"]
    together: tuple[str, ...] = ()
    patients: Count
    events: Count = None
    competing_events: Count = None
    person_years: float | None = None
    median_followup_months: float | None = None
    vendors: dict[str, Count] = Field(default_factory=dict)
    field_strengths_t: dict[str, Count] = Field(default_factory=dict)
    covariates: MomentsField | None = None
    units: dict[str, str] = Field(default_factory=dict)
    refused: dict[str, Count] = Field(default_factory=dict)
    noise_sd: float | None = Field(None, gt=0)

    @property
    def silent(self) -> bool:
        """Whether the hospital told nothing at all, as opposed to withholding small counts."""
        return self.patients is None and self.covariates is None


# The name of the one line of losses where only sums were seen; no hospital can be called so.
ALL_TOGETHER = "all hospitals together"


class Training(Frozen):
    """Mean training loss per hospital, one entry a round (round 1 first); ``None`` = no reply.

    Where secure sums hid the hospitals' own, there is one entry `ALL_TOGETHER`.

    ``bytes_down`` and ``bytes_up``: what each round sent to all its ``num_asked`` hospitals and
    what they sent, arrays and documents; empty where it was not counted.

    ``skipped``: hospitals whose replies weighed nothing in any round, with the reason.
    """

    loss: dict[str, tuple[float | None, ...]]
    validation_loss: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    bytes_down: tuple[int, ...] = ()
    bytes_up: tuple[int, ...] = ()
    num_asked: tuple[int, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)


class SiteValidation(Frozen):
    """The sums one hospital sent about one set of models.

    Of a training hospital the patients of its hold-out fold, of an external hospital all patients.

    Attributes
    ----------
    agreement : dict of str to AgreementSums
        By quantity, the keys of `protocol.stats.QUANTITIES`.
    pairs, regression_pairs : PairCounts or None
        Of the network's predicted risk, and of the Cox regression it is compared with.
    evaluation : SiteEvaluation or None
        Sums of the further metrics.
    sorting : dict of str to ConfusionSums
        Series by what the rules or a person say and what the sorting network says: ``sequence`` and
        ``view``.
    """

    overlap: OverlapField | None = None
    agreement: dict[str, AgreementField] = Field(default_factory=dict)
    pairs: PairsField | None = None
    regression_pairs: PairsField | None = None
    life_table: LifeTableField | None = None
    calibration: CalibrationField | None = None
    evaluation: SiteEvaluation | None = None
    sorting: dict[Literal["sequence", "view"], ConfusionField] = Field(default_factory=dict)


class Arm(Frozen):
    """One way of training (federated, pooled, local), judged at every hospital.

    Attributes
    ----------
    evaluation : dict
        By role of the hospitals.
    """

    sites: dict[str, SiteValidation]
    evaluation: dict[Literal["train", "external"], RoleEvaluation] = Field(default_factory=dict)


class Oracle(Frozen):
    """What the true hazard attains (simulation only).

    Attributes
    ----------
    pairs : dict of str to PairCounts
        Pair counts of the true linear predictor, by hospital.
    closed_form : dict of str to float
        Population C-index of the hospital's hazard, in (0, 1).
    """

    pairs: dict[str, PairsField] = Field(default_factory=dict)
    closed_form: dict[str, float] = Field(default_factory=dict)


class Oddity(Frozen):
    """What is odd about one covariate at one hospital (see `server.missingness`)."""

    hospital: str
    covariate: str
    why: str


class BrokenLog(Frozen):
    """A hospital's log that no longer goes on from where it stood (see `server.heads`)."""

    hospital: str
    which: Literal["audit log", "privacy ledger"]
    how: Literal["went back", "contradicts itself"]


class Results(Frozen):
    """A whole study; ``arms``: ``federated`` and, where run, ``pooled`` and ``local/<site>``.

    ``missed``: who missed more rounds in a row than ``rounds.max_missed`` of the study allows.
    """

    schema_version: Literal[1] = 1
    study: StudyFacts
    hospitals: tuple[Hospital, ...] = Field(min_length=1)
    training: dict[Literal["sort", "segment", "prognosis"], Training] = Field(default_factory=dict)
    missed: tuple[MissedRounds, ...] = ()
    oddities: tuple[Oddity, ...] = ()
    regression: RegressionResults | None = None
    baseline: BaselineResults | None = None
    causes: dict[Literal["train", "external"], tuple[CauseRow, ...]] = Field(default_factory=dict)
    arms: dict[str, Arm] = Field(default_factory=dict)
    oracle: Oracle | None = None
    subgroups: tuple[SubgroupRow, ...] = ()
    designs: DesignResults = DesignResults()
    broken_logs: tuple[BrokenLog, ...] = ()

    @property
    def finished_without(self) -> tuple[str, ...]:
        """The hospitals that were missing when a stage of training ended; sorted."""
        return tuple(sorted({m.hospital for m in self.missed if m.to_the_end}))

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [hospital.name for hospital in self.hospitals]
        if len(set(names)) != len(names):
            raise ValueError("a hospital stands twice in 'hospitals'; name each once")
        for arm, content in self.arms.items():
            if arm not in {"federated", "pooled"} and not arm.startswith("local/"):
                raise ValueError(f"arm '{arm}' is none of federated, pooled, local/<site>")
            members = {name for hospital in self.hospitals for name in hospital.together}
            strangers = sorted(set(content.sites) - set(names) - members)
            if strangers:
                raise ValueError(f"arm '{arm}' names {strangers[0]}, which is not in 'hospitals'")
        return self

    @classmethod
    def of(cls, values: Any) -> Self:
        """Check a dict (as ``json.load`` gives it, or with the sums as objects).

        Raises
        ------
        PayloadError
            One sentence naming the first wrong place.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the top level"
            raise PayloadError(
                f"The results are not valid at {place}: "
                f"{first['msg'].removeprefix('Value error, ')}; write them with this version."
            ) from error


def save_results(results: Results, path: Path) -> None:
    """Write ``results.json``; the same results give the same bytes."""
    path.write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_results(path: Path) -> Results:
    """Read ``results.json``.

    Raises
    ------
    PayloadError
        If the file is not JSON or does not have the schema.
    """
    try:
        return Results.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise PayloadError(
            f"{path.name} is not a results file of this version; run the study again."
        ) from error
