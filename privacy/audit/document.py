"""What an audit found: one file that a report shows and anybody can compare with their own."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from protocol import documents
from protocol.errors import PayloadError
from protocol.yaml_files import Frozen

__all__ = ["AuditDocument", "AuditFigure", "load_audit", "save_audit"]

Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
MAX_FIGURES = 500


class AuditFigure(Frozen):
    """One figure of one attack on one network.

    Attributes
    ----------
    network, attack, measure : str
        What was attacked, how, and what is counted.
    epsilon, delta : float or None
        Privacy that was claimed of what was released, for one patient; None without any.
    value : float
        The figure.
    low, high : float or None
        Its 95 % interval.
    guessing : float or None
        What somebody gets who has seen nothing that was released.
    """

    network: Text
    attack: Text
    measure: Text
    epsilon: Number | None = Field(None, ge=0)
    delta: Number | None = Field(None, gt=0, lt=1)
    value: Number
    low: Number | None = None
    high: Number | None = None
    guessing: Number | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError("epsilon and delta are told together or not at all")
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has a low and a high end")
        return self


class AuditDocument(Frozen):
    """All figures of an audit.

    Attributes
    ----------
    subject : str
        What was attacked, in one sentence: whose networks, which patients.
    code_version : str
        Of the code that was attacked.
    notes : tuple of str
        What a reader must know of how it was done.
    """

    schema_version: Literal[1] = 1
    subject: Text
    code_version: Text
    figures: tuple[AuditFigure, ...] = Field(min_length=1, max_length=MAX_FIGURES)
    notes: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field(
        default=(), max_length=20
    )

    @classmethod
    def of(cls, values: dict[str, Any], where: str) -> Self:
        """Check a dict.

        Raises
        ------
        PayloadError
            One sentence naming the first wrong place.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the top level"
            raise PayloadError(
                f"{where} is not a valid audit at {place}: "
                f"{first['msg'].removeprefix('Value error, ')}; write it with this version."
            ) from error


def save_audit(audit: AuditDocument, path: Path) -> None:
    """Write an audit; the same audit gives the same bytes."""
    path.write_text(audit.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_audit(path: Path) -> AuditDocument:
    """Read an audit.

    Raises
    ------
    PayloadError
        If the file cannot be read, is larger than 8 MiB, or does not have the schema.
    """
    try:
        if path.stat().st_size > documents.MAX_DOCUMENT_BYTES:
            raise PayloadError(f"{path.name} is larger than 8 MiB; an audit is not.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PayloadError(
            f"{path.name} cannot be read as an audit; give the JSON file of one."
        ) from error
    return AuditDocument.of(documents.decode(text, path.name), path.name)
