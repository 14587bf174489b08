"""What ``site.yaml`` says about secure sums: whom the hospital trusts, what it insists on."""

import re
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from protocol.config import Study
from protocol.errors import PrivacyError

__all__ = ["SecureSettings", "must_be_masked"]

# What is masked in a study that aggregates securely, and sent in no other way by a hospital that
# insists. Surveys and validations are suppressed counts and sums, and travel as ever.
MASKED = ("query.cox",)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class SecureSettings(BaseModel):
    """The section ``secure_aggregation`` of ``site.yaml``; no message can change it.

    Attributes
    ----------
    peers : mapping
        Fingerprint of each hospital this one takes part in sums with, as that hospital's
        ``concors-client identity`` prints it and its people confirm it.
    required : bool
        Refuse to send a model update or a regression's sums otherwise than masked.
    min_hospitals : int
        Fewest hospitals whose sum this one lets be opened.
    min_update_noise : float
        Least noise on a sum of updates, as a multiple of the clipping bound; 0 asks for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    peers: dict[Name, str] = Field(min_length=2)
    required: bool = True
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
        the hospital has not said whom it trusts, or there is no masked answer to this message.
    """
    masked = message_type in MASKED or message_type.startswith("train.")
    if not masked and message_type != "query.risk_sets":
        return False
    if study.secure_aggregation is None:
        if settings is not None and settings.required:
            raise PrivacyError(
                f"{site} sends models and sums of regressions only masked, and this study has no "
                "secure_aggregation; add it to the study, or set secure_aggregation.required in "
                "site.yaml."
            )
        return False
    if settings is None:
        raise PrivacyError(
            f"{site} was asked for a secure sum and trusts nobody's keys yet; exchange "
            "fingerprints (concors-client identity) and enter them in secure_aggregation.peers of "
            "site.yaml."
        )
    if not masked:
        raise PrivacyError(
            "Sums over risk sets were asked for in a study of secure aggregation, which does not "
            "cover them; choose another head for the prognosis."
        )
    return True
