"""A hospital's own settings: one ``site.yaml`` in the directory the hospital hands over.

The file is the hospital's alone. No study can set a path, a column or a device here, and no path
may lead out of the hospital's directory.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from client.dictionary import AS_IS, COVARIATES, covariate
from client.pacs.settings import PacsSettings
from client.quality_limits import QualityLimits
from client.secure_settings import SecureSettings
from client.site_sections import CovariateColumn, Ecg, Images, Masks, Outcomes
from protocol.config import SiteName
from protocol.errors import ConfigError
from protocol.yaml_files import Frozen, parse, read_yaml

__all__ = [
    "SITE_FILE",
    "SiteConfig",
    "inside",
    "load_site",
    "site_sorter",
]

SITE_FILE = "site.yaml"
COVARIATE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class SiteConfig(Frozen):
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
