"""A hospital's own settings: one ``site.yaml`` in the directory the hospital hands over.

The file is the hospital's alone. No study can set a path, a column or a device here, and no path
may lead out of the hospital's directory.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from client.dictionary import AS_IS, COVARIATES, covariate
from client.intake.walking import MAX_FILES, MAX_STUDY_IMAGES
from client.pacs.settings import PacsSettings
from client.quality_limits import QualityLimits
from client.secure_settings import SecureSettings
from protocol.config import SiteName
from protocol.errors import ConfigError
from protocol.yaml_files import parse, read_yaml
from shared_models.labels import CLASS_NAMES

__all__ = [
    "SITE_FILE",
    "CovariateColumn",
    "Dates",
    "Ecg",
    "Images",
    "Masks",
    "Outcomes",
    "SiteConfig",
    "inside",
    "load_site",
    "site_sorter",
]

SITE_FILE = "site.yaml"
COVARIATE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
LABEL_NAMES = tuple(CLASS_NAMES.values())


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Images(_Frozen):
    """Where the studies lie.

    Attributes
    ----------
    format : {"dicom", "acdc", "nifti", "numpy"}
        ``nifti`` and ``numpy``: see `client.volumes`.
    group : str or None
        One diagnosis group of the ACDC archive.
    without_preamble : bool
        Read DICOM files that lack the 128 bytes and the word at their beginning. Off: nearly all of
        them are something else.
    overrides : str or None
        A table of what people decided about single series; see `client.overrides`.
    max_files, max_study_images : int
        Bounds of memory: more files below ``path`` are an error, a study of more images (frames of
        enhanced files counted) is not used.
    sorter : str or None
        Weights of a sorting network (``sort/final.safetensors`` of a study) that decides where the
        rules are unsure.
    """

    format: Literal["dicom", "acdc", "nifti", "numpy"]
    path: str = Field(min_length=1)
    group: Literal["NOR", "MINF", "DCM", "HCM", "RV"] | None = None
    without_preamble: bool = False
    overrides: str | None = Field(None, min_length=1)
    max_files: int = Field(MAX_FILES, ge=1)
    max_study_images: int = Field(MAX_STUDY_IMAGES, ge=1)
    sorter: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _group_is_acdc(self) -> Self:
        if self.group is not None and self.format != "acdc":
            raise ValueError("group stands only with format acdc; remove it")
        if self.format != "dicom" and (self.overrides or self.sorter):
            raise ValueError("overrides and sorter stand only with format dicom; remove them")
        return self


class Dates(_Frozen):
    """Columns of dates, from which follow-up is reckoned at the hospital; no date is kept.

    Attributes
    ----------
    cmr : str
        Time zero.
    last_contact : str
        Until when the patient is known to be free of the event.
    event : str
        Date of the event; empty where there was none.
    order : {"ymd", "dmy", "mdy"}
        Of day, month and year as they are written, with four digits of the year.
    """

    cmr: str
    last_contact: str
    event: str
    order: Literal["ymd", "dmy", "mdy"] = "ymd"


class Outcomes(_Frozen):
    """The table of follow-up and the names of its columns.

    Attributes
    ----------
    path : str
        CSV, or Parquet where the name ends so.
    months, event : str or None
        Follow-up from the CMR on and whether it ended with the event (1) or without (0).
    dates : Dates or None
        Instead of these two.
    start : str or None
        Months at which a patient came under observation, where that is not time zero (left
        truncation); below ``months``.
    causes : int
        Kinds of event the event column tells apart: 0 is censored, 1 the event of interest, 2 up to
        this number a competing one, which a study without competing risks takes as censored then.
    held_out : str or None
        1 for the patients this hospital keeps aside in every study, 0 for the others: a split that
        was fixed beforehand, instead of the study's own.
    """

    path: str = Field(min_length=1)
    patient: str
    months: str | None = None
    event: str | None = None
    dates: Dates | None = None
    start: str | None = None
    held_out: str | None = None
    causes: int = Field(1, ge=1, le=9)

    @model_validator(mode="after")
    def _times_or_dates(self) -> Self:
        if self.dates is None and (self.months is None or self.event is None):
            raise ValueError("give the columns months and event, or dates")
        if self.dates is not None and (self.months or self.event or self.start):
            raise ValueError("dates stand in place of months, event and start; remove one of them")
        if self.dates is not None and self.causes > 1:
            raise ValueError("dates tell one kind of event; give months and event for causes")
        return self


class CovariateColumn(_Frozen):
    """A column of the outcome table and the unit its numbers are in.

    ``as is`` is the unit of a covariate that is the study's own and not in the data dictionary.
    """

    column: str
    unit: str


class Masks(_Frozen):
    """Expert masks and the hospital's own label convention.

    Attributes
    ----------
    labels : mapping
        Of ``dicom_seg`` and ``nifti``: a segment number or a voxel value to LV, MYO or RV. Several
        values may mean one class (a hospital that draws papillary muscles apart).
    rois : mapping
        Of ``rtstruct``: the name of a region to LV, MYO, RV or EPI, the whole ventricle within its
        epicardium. Without RV the masks are not used for training.
    link : str or None
        Of ``sunnybrook``: a CSV of two columns, the patient number and the folder of contours; None
        where the folders are named by the patient number.
    """

    format: Literal["dicom_seg", "nifti", "rtstruct", "sunnybrook"]
    path: str = Field(min_length=1)
    labels: dict[int, Literal["LV", "MYO", "RV"]] = Field(default_factory=dict)
    rois: dict[str, Literal["LV", "MYO", "RV", "EPI"]] = Field(default_factory=dict)
    link: str | None = None

    @field_validator("labels")
    @classmethod
    def _complete(cls, labels: dict[int, str]) -> dict[int, str]:
        absent = [name for name in LABEL_NAMES if name not in labels.values()]
        if labels and absent:
            raise ValueError(f"{', '.join(absent)} has no value; map one to each of LV, MYO and RV")
        if labels and min(labels) < 1:
            raise ValueError("a label value is below 1; 0 is the background")
        return labels

    @model_validator(mode="after")
    def _fits_format(self) -> Self:
        if bool(self.labels) != (self.format in ("dicom_seg", "nifti")):
            raise ValueError("labels stand with format dicom_seg or nifti, and only there")
        if bool(self.rois) != (self.format == "rtstruct"):
            raise ValueError("rois stand with format rtstruct, and only there")
        classes = set(self.rois.values())
        if self.rois and not ("LV" in classes and classes & {"MYO", "EPI"}):
            raise ValueError("rois names no LV, or neither MYO nor EPI")
        if self.link is not None and self.format != "sunnybrook":
            raise ValueError("link stands only with format sunnybrook; remove it")
        return self


class Ecg(_Frozen):
    """Where the patients' electrocardiograms lie: one folder, files named after the patient."""

    format: Literal["wfdb", "dicom"]
    path: str = Field(min_length=1)


class SiteConfig(_Frozen):
    """Everything one hospital states about itself.

    Attributes
    ----------
    images : Images or None
        Where the studies lie; ``None`` for a pooled archive and for a hospital that has outcomes
        and covariates only.
    members : tuple of str
        Instead of data of its own: directories of other sites, whose cohorts are concatenated.
    quality : QualityLimits
        Beyond which a study or a mask is set aside.
    pacs : PacsSettings or None
        The image archive that ``concors-client fetch`` asks.
    secure_aggregation : SecureSettings or None
        Whose keys the hospital trusts in secure sums, and what it insists on.
    min_cell : int
        Counts of 1 to ``min_cell - 1`` patients are withheld from survey and validation; the number
        a stage trains on is sent as it is.
    device, precision, compile : str
        As :meth:`shared_models.execution.Execution.resolve` reads them.
    workers : int
        Processes that read DICOM.
    threads : int
        Threads of a training step.
    secret : str
        File with the key of the pseudonyms, made on first use.
    """

    name: SiteName
    images: Images | None = None
    members: tuple[str, ...] = ()
    outcomes: Outcomes | None = None
    covariates: dict[str, CovariateColumn] = Field(default_factory=dict)
    masks: Masks | None = None
    ecg: Ecg | None = None
    quality: QualityLimits = QualityLimits()
    pacs: PacsSettings | None = None
    secure_aggregation: SecureSettings | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "true", "false"] = "auto"
    threads: int = Field(2, ge=1)
    workers: int = Field(1, ge=1, le=64)
    min_cell: int = Field(5, ge=1)
    secret: str = Field("site.secret", pattern=r"^[A-Za-z0-9_.-]{1,64}$")

    @field_validator("compile", mode="before")
    @classmethod
    def _yaml_boolean(cls, value: object) -> object:
        # YAML reads `compile: true` as a boolean; both spellings mean the same.
        return str(value).lower() if isinstance(value, bool) else value

    @field_validator("covariates")
    @classmethod
    def _in_dictionary(cls, columns: dict[str, CovariateColumn]) -> dict[str, CovariateColumn]:
        for name, column in columns.items():
            if not COVARIATE_NAME.fullmatch(name):
                raise ValueError(
                    "a covariate's name is not a letter and up to 63 of A-Z a-z 0-9 _.-"
                )
            if name not in COVARIATES and column.unit != AS_IS:
                raise ValueError(
                    f"'{name}' is not in the data dictionary ({', '.join(sorted(COVARIATES))}); "
                    f"a study's own covariate has the unit '{AS_IS}'"
                )
            units = covariate(name).units
            if column.unit not in units:
                raise ValueError(f"'{name}' cannot be in '{column.unit}'; use {', '.join(units)}")
        return columns

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.members and self.images:
            raise ValueError("give either images or members")
        if not (self.members or self.images or self.outcomes):
            raise ValueError("give images, outcomes (or both) or members")
        if self.masks is not None and self.images is None and not self.members:
            raise ValueError("masks are drawn on images; give images or remove masks")
        if self.members and (self.outcomes or self.masks or self.covariates or self.ecg):
            raise ValueError(
                "a pooled site takes outcomes, masks, covariates and ecg from its members"
            )
        if self.covariates and self.outcomes is None:
            raise ValueError("covariates are columns of the outcome table; give outcomes")
        if self.masks is not None and self.images and self.images.format == "acdc":
            raise ValueError("the ACDC archive brings its own masks; remove masks")
        volumes = self.images is not None and self.images.format in ("nifti", "numpy")
        if volumes and self.masks is not None and self.masks.format != "nifti":
            raise ValueError("masks of another format than nifti name DICOM images; remove masks")
        return self


def load_site(site_dir: Path) -> SiteConfig:
    """Read and check ``site.yaml`` of a hospital's directory.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown, or a value is wrong.
    """
    path = site_dir / SITE_FILE
    try:
        state = path.stat()
    except OSError:
        return _load(path)
    return _unchanged(path.resolve(), state.st_mtime_ns, state.st_size)


def _load(path: Path) -> SiteConfig:
    return parse(SiteConfig, read_yaml(path), SITE_FILE)


# A process that serves many messages parses an unchanged file once.
@lru_cache(maxsize=512)
def _unchanged(path: Path, mtime_ns: int, size: int) -> SiteConfig:
    return _load(path)


def site_sorter(site_dir: Path, images: Images) -> Path | None:
    """Return the file of the sorting network that is named; ``None`` where none is."""
    if images.sorter is None:
        return None
    return inside(site_dir, images.sorter, "images.sorter")


def inside(site_dir: Path, relative: str, key: str) -> Path:
    """Resolve a path of ``site.yaml`` and refuse one that leaves the hospital's directory.

    Parameters
    ----------
    site_dir : Path
        Directory that holds ``site.yaml``.
    relative : str
        The path as written.
    key : str
        Where it is written, e.g. ``"outcomes.path"``; for the error.

    Raises
    ------
    ConfigError
        If the path, after symbolic links are followed, is not below ``site_dir`` or does not exist.
    """
    root = site_dir.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise ConfigError(
            f"{SITE_FILE}: {key} leads out of the site's directory; put the data below it."
        )
    if not path.exists():
        raise ConfigError(f"{SITE_FILE}: {key} names nothing that exists; correct the path.")
    return path
