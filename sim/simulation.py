"""The ``simulation`` section of a study file: which hospitals to make, what to compare with."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocol.config import Study, load_study
from protocol.errors import ConfigError
from protocol.yaml_files import parse, read_yaml
from sim.arms import Comparator
from sim.config import PhantomConfig, SurvivalConfig

__all__ = ["AcdcConfig", "Simulation", "load_simulation", "real_data"]


class AcdcConfig(BaseModel):
    """The public ACDC patients, one hospital per diagnosis group, read where they lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = "acdc"


class Simulation(BaseModel):
    """What the simulator adds to a study.

    Attributes
    ----------
    phantom, acdc, survival
        Where the hospitals come from; exactly one of them.
    comparators : tuple of {"pooled", "local"}
        Arms run beside the federated one.
    processes : int
        Arms that run at once; each hospital's ``threads`` stand in its own settings.
    examples : int
        Example images in the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phantom: PhantomConfig | None = None
    acdc: AcdcConfig | None = None
    survival: SurvivalConfig | None = None
    comparators: tuple[Comparator, ...] = ()
    processes: int = Field(2, ge=1, le=64)
    examples: int = Field(4, ge=0, le=24)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(part is not None for part in (self.phantom, self.acdc, self.survival)) != 1:
            raise ValueError("name one source of hospitals, phantom, acdc or survival")
        return self

    @property
    def source(self) -> Literal["phantom", "acdc", "survival"]:
        if self.survival is not None:
            return "survival"
        return "phantom" if self.phantom is not None else "acdc"


def load_simulation(path: Path) -> tuple[Study, Simulation]:
    """Read both sections of a study file that is to be simulated.

    Raises
    ------
    ConfigError
        If the file cannot be read, has no ``simulation`` section, or a key or value is wrong.
    """
    study = load_study(path)
    values = read_yaml(path)
    unknown = sorted(set(values) - {"study", "simulation"})
    if unknown:
        raise ConfigError(f"{path.name}: unknown section '{unknown[0]}'; remove it.")
    if "simulation" not in values:
        raise ConfigError(
            f"{path.name} has no 'simulation' section, which says where the hospitals come from; "
            "add one or run the study with concors-server."
        )
    return study, parse(Simulation, values["simulation"], f"{path.name}: simulation")


def real_data() -> Path:
    """Return the folder of real data: ``CONCORS_DATA``, or ``../shared/data`` by the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("CONCORS_DATA", beside))
