"""Validation designs and subgroups as they stand in ``results.json``."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.judgements import Overlap, Ranking

__all__ = ["DesignResults", "DesignRun", "Optimism", "SubgroupRow"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DesignRun(_Frozen):
    """One derived study, judged at each hospital that answered.

    Attributes
    ----------
    name : str
        The hospital left out, or the one that trained alone.
    train : tuple of str
        Who trained.
    reason : str
        Why there is no model, in one sentence; empty where there is one.
    network, regression : dict of str to Ranking
        By hospital, the survival network and the Cox regression; a training hospital's are of its
        held-out patients.
    overlap : dict of str to Overlap
        By hospital, the segmentation network.
    """

    name: str
    train: tuple[str, ...] = Field(min_length=1)
    reason: str = ""
    network: dict[str, Ranking] = Field(default_factory=dict)
    regression: dict[str, Ranking] = Field(default_factory=dict)
    overlap: dict[str, Overlap] = Field(default_factory=dict)


class Optimism(_Frozen):
    """The Cox regression's C on its own patients, and what of it is optimism (Harrell 1996).

    Attributes
    ----------
    patients, events : int
        On whom it was fitted and judged.
    apparent, corrected : float
        ``corrected = apparent - optimism``; ``apparent`` in [0, 1].
    optimism : float
        Mean over replicates of the refitted model's C on its own resample minus its C on the
        patients as they are; 0 without replicates.
    optimism_se : float or None
        Monte-Carlo standard error of ``optimism``: what more replicates would reduce.
    lower, upper : float or None
        95 % interval of ``corrected``: percentiles of the C on the resamples, moved down by the
        optimism (location-shifted bootstrap interval, Noma et al., Stat Med 2021;40:5691).
    replicates, failed : int
        B, and how many more resamples had no finite fit or no answer and are not in it.
    """

    patients: int = Field(ge=0)
    events: int = Field(ge=0)
    apparent: Annotated[float, Field(ge=0, le=1)]
    optimism: Annotated[float, Field(ge=-1, le=1)] = 0.0
    corrected: float
    optimism_se: Annotated[float, Field(ge=0)] | None = None
    lower: float | None = None
    upper: float | None = None
    replicates: int = Field(0, ge=0)
    failed: int = Field(0, ge=0)


class DesignResults(_Frozen):
    """The designs a study asked for; those it did not are empty.

    Attributes
    ----------
    optimism_reason : str
        Why there is no corrected C though it was asked for.
    """

    leave_one_out: tuple[DesignRun, ...] = ()
    matrix: tuple[DesignRun, ...] = ()
    optimism: Optimism | None = None
    optimism_reason: str = ""


class SubgroupRow(_Frozen):
    """One group of patients over the hospitals of a role.

    Attributes
    ----------
    attribute, group : str
        Keys of `protocol.subgroups.GROUPS`.
    hospitals : int
        Those that told of at least one patient; a hospital withholds its small groups.
    """

    role: Literal["train", "external"]
    attribute: str
    group: str
    hospitals: int = Field(ge=0)
    network: Ranking | None = None
    regression: Ranking | None = None
    overlap: Overlap | None = None
