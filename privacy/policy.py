"""What a hospital allows: the noise, the clipping, the sampling and the caps of its own policy.

The hospital writes it (``client.policy`` reads it from its disk) and no message can change it. A
study may ask for more privacy than the policy gives, never for less.
"""

from typing import Any

from pydantic import Field, model_validator

from protocol.errors import PrivacyError
from protocol.privacy_config import PrivacyAsked
from protocol.yaml_files import Frozen

__all__ = ["PrivacyPolicy", "agree", "stricter"]

# Where more is more private; everywhere else less is.
UPWARD = frozenset({"noise_multiplier", "statistics_noise"})


class PrivacyPolicy(Frozen):
    """A hospital's terms, each for one patient of this hospital.

    Attributes
    ----------
    noise_multiplier : float
        sigma > 0: the noise on a sum of clipped gradients has the standard deviation
        ``noise_multiplier * clip_norm`` in every coordinate.
    clip_norm : float
        C > 0: the L2 norm to which one patient's gradient is cut.
    sampling_rate : float
        q in (0, 1]: each patient joins a step with this probability, independently (Poisson).
    steps_per_round : int
        Steps of one round, at least 1.
    max_rounds : int
        Rounds of one stage of one study, at least 1.
    delta : float
        In (0, 1); should be well below 1 / number of patients.
    study_epsilon, lifetime_epsilon : float
        Caps of the composed epsilon at ``delta``: of one study, and of everything ever released
        about these patients.
    statistics_noise : float
        Noise on one vector of sums (survey, metrics), in units of its L2 sensitivity.
    slices_per_patient : int
        Slices that are drawn of a patient in a segmentation step; no matter of privacy, as the
        patient's gradient is clipped whole.
    """

    noise_multiplier: float = Field(gt=0, le=1e6, allow_inf_nan=False)
    clip_norm: float = Field(gt=0, le=1e6, allow_inf_nan=False)
    sampling_rate: float = Field(gt=0, le=1)
    steps_per_round: int = Field(ge=1, le=100_000)
    max_rounds: int = Field(ge=1, le=100_000)
    delta: float = Field(gt=0, lt=1)
    study_epsilon: float = Field(gt=0, allow_inf_nan=False)
    lifetime_epsilon: float = Field(gt=0, allow_inf_nan=False)
    statistics_noise: float = Field(gt=0, le=1e6, allow_inf_nan=False)
    slices_per_patient: int = Field(4, ge=1, le=1000)

    @model_validator(mode="after")
    def _caps_in_order(self) -> "PrivacyPolicy":
        if self.study_epsilon > self.lifetime_epsilon:
            raise ValueError(
                "study_epsilon is above lifetime_epsilon, so it would never bind; lower it"
            )
        return self


def stricter(policy: PrivacyPolicy, asked: PrivacyAsked) -> PrivacyPolicy:
    """Return the hospital's policy with what a study asks for, where that is more private.

    More private are a larger ``noise_multiplier`` or ``statistics_noise`` and a smaller value of
    everything else. A smaller ``delta`` makes the same caps tighter, as epsilon grows when delta
    falls.

    Raises
    ------
    PrivacyError
        Naming the field, what is asked and what is allowed, if anything is less private.
    """
    wanted = asked.model_dump(exclude_none=True, exclude={"required"})
    for field, value in wanted.items():
        allowed = getattr(policy, field)
        weaker = value < allowed if field in UPWARD else value > allowed
        if weaker:
            bound = "at least" if field in UPWARD else "at most"
            raise PrivacyError(
                f"the study asks for privacy.{field} {value:g}, and this hospital's policy allows "
                f"{bound} {allowed:g}; ask for no less privacy than that, or leave it out."
            )
    values: dict[str, Any] = policy.model_dump() | wanted
    # A study's smaller lifetime cap is a smaller cap on the study as well.
    values["study_epsilon"] = min(values["study_epsilon"], values["lifetime_epsilon"])
    return PrivacyPolicy.model_validate(values)


def agree(policy: PrivacyPolicy | None, asked: PrivacyAsked) -> PrivacyPolicy | None:
    """Return the terms of one study at this hospital; ``None`` where it trains without noise.

    Raises
    ------
    PrivacyError
        If the study takes only hospitals with a policy and this one has none, or as `stricter`.
    """
    if policy is not None:
        return stricter(policy, asked)
    if asked.required:
        raise PrivacyError(
            "the study takes only hospitals with a privacy policy, and this one has none; write "
            "the section privacy of policy.yaml, or take no part."
        )
    return None
