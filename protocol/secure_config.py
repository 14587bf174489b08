"""The section of a study that has models and sums aggregated without anybody seeing one of them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from protocol.yaml_files import Frozen

__all__ = ["AdaptiveClipping", "SecureAggregation", "UpdatePrivacy"]


class AdaptiveClipping(Frozen):
    """The clipping bound follows a quantile of the updates' norms (Andrew et al. 2021).

    Attributes
    ----------
    quantile : float
        Share of the hospitals whose update should be within the bound.
    learning_rate : float
        Of the geometric update, eta_C in the paper.
    count_noise : float
        Standard deviation of the noise on the number of hospitals within the bound, sigma_b.
    """

    quantile: float = Field(0.5, gt=0, lt=1)
    learning_rate: float = Field(0.2, gt=0, le=1)
    count_noise: float = Field(1.0, gt=0)


class UpdatePrivacy(Frozen):
    """Noise on the sum of the hospitals' updates, so that it tells little of any one hospital.

    With ten hospitals the noise that a small epsilon needs drowns the update: this is for many
    small practices, or simulations of them; hospitals protect patients with noise in training.

    Attributes
    ----------
    noise_multiplier : float
        Standard deviation of the noise on the sum, times the clipping bound.
    clip_norm : float
        L2 bound of one hospital's update; the first one where the bound adapts.
    delta : float
        Of the epsilon that is reported.
    colluding : int
        Hospitals that may tell the centre their share of the noise. The others add enough without.
    weight_cap : int or None
        Patients beyond which a hospital weighs no more; weights are divided by it and the sum by
        the number of hospitals. None weighs all hospitals alike.
    adaptive : AdaptiveClipping or None
    """

    noise_multiplier: float = Field(gt=0)
    clip_norm: float = Field(gt=0)
    delta: float = Field(1e-5, gt=0, lt=1)
    colluding: int = Field(0, ge=0)
    weight_cap: int | None = Field(None, ge=1)
    adaptive: AdaptiveClipping | None = None


class SecureAggregation(Frozen):
    """Secure sums of model updates and of all statistics.

    Attributes
    ----------
    cover : {"everything", "training"}
        What travels masked: models and every statistic (survey, measurements, scores, regressions,
        validations), or models and the stratified Cox regression only, everything else as each
        hospital's own suppressed counts and sums.
    min_cell : int
        Under masks hospitals count exactly, and it is totals below this number of patients that
        are withheld. Hospitals have minima of their own and take part in no study with a lower one.
    min_hospitals : int
        A sum over fewer is not opened; hospitals have minima of their own.
    threshold : int or None
        Hospitals that must still be there when a sum is opened; None is the lowest they accept, the
        first whole number above two thirds.
    step_bits : int
        Updates are rounded to multiples of ``2^-step_bits``.
    sum_step_bits : int
        The same for sums of a regression, which travel in words of 64 bits; what other statistics
        are rounded to says `protocol.stats.vectors`.
    updates : UpdatePrivacy or None
        Noise on the sums of updates.
    """

    cover: Literal["everything", "training"] = "everything"
    min_cell: int = Field(5, ge=1)
    min_hospitals: int = Field(3, ge=3)
    threshold: int | None = Field(None, ge=3)
    step_bits: int = Field(24, ge=4, le=28)
    sum_step_bits: int = Field(36, ge=16, le=44)
    updates: UpdatePrivacy | None = None

    @model_validator(mode="after")
    def _enough_noise(self) -> Self:
        updates = self.updates
        if updates is not None and updates.colluding >= (self.threshold or self.min_hospitals):
            raise ValueError(
                "updates.colluding is not below the threshold, so nobody's noise would be unknown "
                "to the centre; assume fewer"
            )
        return self
