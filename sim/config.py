"""What the simulated hospitals look like: ``simulation.phantom`` and ``simulation.survival``."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from privacy.policy import PrivacyPolicy
from protocol.errors import ConfigError
from protocol.yaml_files import parse, read_yaml

__all__ = [
    "Disease",
    "HospitalConfig",
    "ImageConfig",
    "OutcomeConfig",
    "PhantomConfig",
    "QuirkConfig",
    "SurvivalConfig",
    "VendorName",
    "load_phantom_config",
]

VendorName = Literal["siemens", "philips", "ge", "canon"]
Disease = Literal["normal", "dcm", "hcm", "ischaemic"]
SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section of the configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HospitalConfig(Section):
    """One hospital: how many patients, on which scanners, written down in which manner.

    Attributes
    ----------
    num_masks : int
        Patients whose ED and ES cine frames an expert has contoured.
    vendors, classes : dict
        Relative frequencies; they need not sum to 1.
    field_strengths_t : dict
        Relative frequencies of the field strengths, T.
    records : str
        A key of ``sim.records.RECORD_STYLES``: column names, units and codes of ``outcomes.csv``.
    segments : str
        Segment numbers of the masks: ``rv_first`` is 1 RV, 2 MYO, 3 LV; ``lv_first`` the reverse.
    missing_rate : float
        Share of covariate cells left empty.
    privacy : PrivacyPolicy or None
        What the hospital's ``policy.yaml`` says; None for a hospital without one.
    """

    name: SiteName
    num_patients: int = Field(ge=1, le=100_000)
    num_masks: int = Field(0, ge=0)
    vendors: dict[VendorName, Weight] = Field(min_length=1)
    field_strengths_t: dict[float, Weight] = Field(default={1.5: 0.7, 3.0: 0.3}, min_length=1)
    classes: dict[Disease, Weight] = Field(
        default={"normal": 0.12, "dcm": 0.30, "hcm": 0.20, "ischaemic": 0.38}, min_length=1
    )
    records: Literal["plain", "american", "german", "italian", "spanish"] = "plain"
    segments: Literal["rv_first", "lv_first"] = "rv_first"
    missing_rate: float = Field(0.04, ge=0, le=0.9)
    privacy: PrivacyPolicy | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.num_masks > self.num_patients:
            raise ValueError(
                f"{self.name} has {self.num_masks} masks for {self.num_patients} patients"
            )
        for what in ("vendors", "field_strengths_t", "classes"):
            if not sum(getattr(self, what).values()) > 0:
                raise ValueError(f"{self.name} gives every entry of {what} the weight 0")
        unknown = sorted(set(self.field_strengths_t) - {1.5, 3.0})
        if unknown:
            raise ValueError(f"{self.name} has field strength {unknown[0]} T; use 1.5 or 3.0")
        return self


class ImageConfig(Section):
    """How finely the phantom is imaged.

    Attributes
    ----------
    matrix_px : int or None
        Side of the image matrix; None takes each vendor's usual one.
    fov_mm : tuple of float
        Field of view, drawn uniformly per patient, mm.
    slice_step_mm : float or None
        Centre-to-centre distance of the short-axis slices; None takes each vendor's usual one.
    sublevels : int
        Points over the slice thickness that are averaged (through-plane partial volume).
    all_sequences : bool
        Add what a whole examination holds beside cine and late enhancement: further views, T1
        mapping, perfusion, flow, phase-sensitive images, surveys; and write what each series is.
    """

    cine_frames: int = Field(10, ge=4, le=60)
    matrix_px: int | None = Field(None, ge=64, le=512, multiple_of=2)
    fov_mm: tuple[float, float] = (230.0, 260.0)
    slice_step_mm: float | None = Field(None, ge=4, le=15)
    sublevels: int = Field(3, ge=1, le=9)
    all_sequences: bool = False


class OutcomeConfig(Section):
    """The known hazard, J5 of the specification: ``lambda_s k t^(k-1) exp(eta)``, t in years.

    Attributes
    ----------
    annual_event_rate : float
        Mean annual event rate at time zero if eta were Gaussian with the two sd below.
    eta_image_sd, eta_covariate_sd : float
        Standard deviations of the pixel-visible and of the covariate part of eta.
    frailty_log_sd : float
        Log-sd of the hospitals' baseline hazards.
    follow_up_years : tuple of float
        Administrative censoring, uniform in this range, years.
    competing_rate : float
        Annual rate of a competing death, which censors, and which rises with eta.
    tau_months : float
        Truncation of the oracle concordance, months.
    """

    annual_event_rate: float = Field(0.20, gt=0, le=5)
    shape: float = Field(1.0, ge=0.5, le=2)
    eta_image_sd: float = Field(1.0, ge=0)
    eta_covariate_sd: float = Field(0.75, ge=0)
    frailty_log_sd: float = Field(0.20, ge=0)
    follow_up_years: tuple[float, float] = (1.0, 8.0)
    competing_rate: float = Field(0.01, ge=0)
    tau_months: float = Field(60.0, gt=0)


class QuirkConfig(Section):
    """What goes wrong in real examinations; zero or false switches a quirk off.

    Attributes
    ----------
    slice_shift_mm : float
        Sd of the in-plane breath-hold shift of each slice, mm.
    mistrigger_rate : float
        Share of cine slices with k-space lines of a neighbouring frame.
    noise : float
        Factor on each vendor's noise sd.
    bias : float
        Relative amplitude of the smooth receive field.
    inversion_error_ms : float
        Sd of the error of the chosen inversion time, ms.
    shuffle_instances : bool
        InstanceNumber in random order where the vendor is known for it.
    private_tags, enhanced : bool
        Vendors' private elements; enhanced multi-frame objects where the vendor writes them.
    zip_interpolation : bool
        Zero-filled interpolation to twice the matrix where the vendor does so.
    """

    slice_shift_mm: float = Field(1.5, ge=0, le=20)
    mistrigger_rate: float = Field(0.05, ge=0, le=1)
    noise: float = Field(1.0, ge=0)
    bias: float = Field(0.25, ge=0, lt=1)
    inversion_error_ms: float = Field(12.0, ge=0)
    shuffle_instances: bool = True
    private_tags: bool = True
    enhanced: bool = True
    zip_interpolation: bool = False


class PhantomConfig(Section):
    """A consortium of phantom hospitals."""

    hospitals: tuple[HospitalConfig, ...] = Field(min_length=1)
    images: ImageConfig = ImageConfig()
    outcomes: OutcomeConfig = OutcomeConfig()
    quirks: QuirkConfig = QuirkConfig()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [hospital.name for hospital in self.hospitals]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"hospital {twice[0]} stands twice; give each its own name")
        return self


class SurvivalConfig(Section):
    """Hospitals made of a public survival data set; see `sim.survival_data`.

    Attributes
    ----------
    num_hospitals : int
        To how many hospitals the training patients of a set without hospitals are dealt.
    """

    data: Literal["dialysis", "tcga_brca", "metabric", "gbsg", "support", "whas"]
    num_hospitals: int = Field(10, ge=1, le=99)


def load_phantom_config(path: Path) -> PhantomConfig:
    """Read ``simulation.phantom`` from a study file.

    Raises
    ------
    ConfigError
        If the file cannot be read, has no such section, or a key or value in it is wrong.
    """
    values = read_yaml(path)
    simulation = values.get("simulation") if isinstance(values, dict) else None
    if not isinstance(simulation, dict) or "phantom" not in simulation:
        raise ConfigError(
            f"{path.name} has no 'simulation.phantom' section; add one that lists the hospitals."
        )
    return parse(PhantomConfig, simulation["phantom"], f"{path.name}: simulation.phantom")
