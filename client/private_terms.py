"""On which terms a hospital trains in a study, and what it then refuses outright."""

from client.hospital import Hospital
from client.policy import load_policy
from privacy.policy import PrivacyPolicy, agree
from protocol.config import Study

__all__ = ["privacy_terms", "refuse_unnoised"]


def privacy_terms(hospital: Hospital, study: Study) -> PrivacyPolicy | None:
    """Return the terms on which the hospital trains in a study; None where it has no policy.

    Raises
    ------
    PrivacyError
        If the study asks for less privacy than the policy, or for a policy where there is none.
    """
    return agree(load_policy(hospital.directory, hospital.config).privacy, study.privacy)


def refuse_unnoised(hospital: Hospital, study: Study, name: str, what: str) -> None:
    """Refuse, at a hospital with a policy, what is without noise.

    Parameters
    ----------
    name : str
        A key of `privacy.refusals.REASONS`.
    what : str
        What was asked for.

    Raises
    ------
    PrivacyError
    """
    if privacy_terms(hospital, study) is not None:
        # Imported here: who only asks for the terms need not wait for torch.
        from privacy.refusals import refusal

        raise refusal(name, what)
