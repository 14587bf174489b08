"""What a study may ask of the hospitals' privacy: more than their policies give, never less."""

from pydantic import Field

from protocol.yaml_files import Frozen

__all__ = ["PrivacyAsked"]


class PrivacyAsked(Frozen):
    """The section ``privacy`` of a study; every part may be left out.

    Each hospital holds what is asked against its own policy: more noise, a smaller clip, a smaller
    sampling rate, fewer steps and rounds, a smaller delta and smaller caps are taken, anything less
    private is refused by that hospital. Hospitals without a policy train as if the section were
    empty, unless ``required``.

    Attributes
    ----------
    required : bool
        Only hospitals with a policy of their own take part.

    The other fields are those of `privacy.policy.PrivacyPolicy`.
    """

    required: bool = False
    noise_multiplier: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False)
    clip_norm: float | None = Field(None, gt=0, allow_inf_nan=False)
    sampling_rate: float | None = Field(None, gt=0, le=1)
    steps_per_round: int | None = Field(None, ge=1)
    max_rounds: int | None = Field(None, ge=1)
    delta: float | None = Field(None, gt=0, lt=1)
    study_epsilon: float | None = Field(None, gt=0, allow_inf_nan=False)
    lifetime_epsilon: float | None = Field(None, gt=0, allow_inf_nan=False)
    statistics_noise: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False)
    slices_per_patient: int | None = Field(None, ge=1)
