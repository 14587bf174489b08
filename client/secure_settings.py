"""What ``site.yaml`` says about secure sums: whom the hospital trusts, what it insists on."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from protocol.config import Study
from protocol.errors import PrivacyError
from protocol.secure_groups import asked_together, has_sum
from protocol.summed import NOBODY

__all__ = ["SecureSettings", "must_be_masked"]

# Beside the models, what is masked in every study that aggregates securely.
REGRESSION = frozenset({"query.cox"})
# What is masked where the study's secure sums cover everything.
MASKED = frozenset(NOBODY)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class SecureSettings(BaseModel):
    """The section ``secure_aggregation`` of ``site.yaml``; no message can change it.

    Attributes
    ----------
    peers : mapping
        Fingerprint of each hospital this one takes part in sums with, as that hospital's
        ``concors-client identity`` prints it and its people confirm it. None at a hospital that
        takes part in no sum, and only permits plain answers.
    required : bool
        Refuse to send otherwise than masked what ``required_for`` says.
    required_for : {"training", "everything"}
        Model updates and a regression's sums, or every statistic too.
    plain_when_few : bool
        Answer plainly, by counts and sums suppressed with the hospital's own ``min_cell``, where
        the study asks fewer hospitals together than a sum needs: of one external hospital a sum
        would hide nothing. Without this permission such questions are refused.
    min_hospitals : int
        Fewest hospitals whose sum this one lets be opened.
    min_update_noise : float
        Least noise on a sum of updates, as a multiple of the clipping bound; 0 asks for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    peers: dict[Name, str] = Field(default_factory=dict)
    required: bool = True
    required_for: Literal["training", "everything"] = "training"
    plain_when_few: bool = False
    min_hospitals: int = Field(3, ge=3)
    min_update_noise: float = Field(0.0, ge=0)

    @field_validator("peers")
    @classmethod
    def _hexadecimal(cls, peers: dict[str, str]) -> dict[str, str]:
        # Printed in groups, they are copied with spaces or colons.
        tidy = {name: re.sub(r"[\s:]", "", text).lower() for name, text in peers.items()}
        for name, text in tidy.items():
            if not FINGERPRINT.fullmatch(text):
                raise ValueError(f"the fingerprint of {name} is not 64 hexadecimal digits")
        return tidy

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if len(self.peers) == 1 or not (self.peers or self.plain_when_few):
            raise ValueError(
                "a sum has three hospitals at least; enter two or more peers, or none and "
                "plain_when_few: true"
            )
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.peers.values())) < len(self.peers):
            raise ValueError(
                "two peers have one fingerprint; one hospital under two names would be two voices"
            )
        return self


def must_be_masked(
    site: str, settings: SecureSettings | None, study: Study, message_type: str
) -> bool:
    """Return whether the answer to a message is to be masked.

    Raises
    ------
    PrivacyError
        If the hospital insists on it and the study does not ask for it, the study asks for it and
        the hospital has not said whom it trusts, there is no masked answer to this message, or so
        few are asked together that there is no sum and the hospital does not permit plain answers.
    """
    trains = message_type.startswith("train.")
    always = trains or message_type in REGRESSION or message_type == "query.risk_sets"
    if not always and message_type not in MASKED:
        return False
    section = study.secure_aggregation
    if not always and (section is None or section.cover == "training"):
        if settings is not None and settings.required and settings.required_for == "everything":
            raise PrivacyError(
                f"{site} sends statistics only masked, and this study has no secure_aggregation "
                "that covers everything; set secure_aggregation.cover in the study, or "
                "required_for in site.yaml."
            )
        return False
    if section is None:
        if settings is not None and settings.required:
            raise PrivacyError(
                f"{site} sends models and sums of regressions only masked, and this study has no "
                "secure_aggregation; add it to the study, or set secure_aggregation.required in "
                "site.yaml."
            )
        return False
    if not always and not has_sum(study, asked_together(study, site)):
        if settings is None or not settings.plain_when_few:
            raise PrivacyError(
                f"{site} is asked with fewer hospitals than a secure sum needs, which would show "
                "its own numbers; let more hospitals take part in its role, or permit it by "
                "secure_aggregation.plain_when_few in site.yaml."
            )
        return False
    if settings is None or not settings.peers:
        raise PrivacyError(
            f"{site} was asked for a secure sum and trusts nobody's keys yet; exchange "
            "fingerprints (concors-client identity) and enter them in secure_aggregation.peers of "
            "site.yaml."
        )
    if message_type == "query.risk_sets" and section.cover == "training":
        raise PrivacyError(
            "Sums over risk sets were asked for in a study whose secure_aggregation covers "
            "training only; let it cover everything, or choose another head for the prognosis."
        )
    return True
