"""The project's one exception tree.

An error is a sentence to the operator: what was found, what was expected, where, what to do.
What leaves a hospital is a code and a sentence of ours, never the text of a foreign exception.
"""

__all__ = [
    "BudgetError",
    "ConcorsError",
    "ConfigError",
    "DataError",
    "EngineError",
    "MissingModelError",
    "PaperError",
    "PayloadError",
    "PolicyError",
    "PrivacyError",
    "QuorumError",
    "TrainingError",
    "TransferError",
    "WorkerError",
]


class ConcorsError(Exception):
    """Base of every error this project raises on purpose.

    Parameters
    ----------
    sentence : str
        One sentence for the operator. It must not contain a patient identifier.
    """

    code = "E000"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class ConfigError(ConcorsError):
    """A configuration file or a study setting is wrong."""

    code = "E100"


class DataError(ConcorsError):
    """The hospital's own data cannot be used as they are."""

    code = "E200"


class TrainingError(ConcorsError):
    """Training could not go on (a loss that is not finite, no usable record)."""

    code = "E300"


class PayloadError(ConcorsError):
    """A message does not have the keys, shapes, types or finite values that were agreed."""

    code = "E400"


class MissingModelError(ConcorsError):
    """The hospital does not hold the model of which the centre sent the change."""

    code = "E410"


class QuorumError(ConcorsError):
    """Too few hospitals answered in time."""

    code = "E500"


class TransferError(ConcorsError):
    """An image archive did not send what it was asked for, or not within the bounds."""

    code = "E600"


class EngineError(ConcorsError):
    """A program of Flower's, or an engine, did not start, did not finish, or failed inside."""

    code = "E610"


class BudgetError(ConcorsError):
    """The hospital declines: what is asked would spend more privacy than its policy allows."""

    code = "E700"


class PrivacyError(ConcorsError):
    """What is asked cannot be private, the policy refuses it, or the ledger cannot be trusted."""

    code = "E710"


class PolicyError(ConcorsError):
    """The hospital's policy refuses what is asked, or nobody there has approved it."""

    code = "E810"


class PaperError(ConcorsError):
    """A signed paper (request, welcome, manifest) is altered, expired, or not from whom it says."""

    code = "E820"


class WorkerError(ConcorsError):
    """The process that does the hospital's work hung, was killed, or ran out of memory."""

    code = "E830"
