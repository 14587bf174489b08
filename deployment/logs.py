"""What our programs say while they run: one place that decides how much, and in which form.

``CONCORS_LOG`` holds a level (``debug``, ``info``, ``warning``, ``error``), a form (``text`` or
``json``, one object a line), or both with a comma between, as ``info,json``; if left out,
``warning,text``.
It goes to standard error. Only our own loggers are touched, and of an exception nothing is told but
its kind and place: the text of a foreign one quotes what it stumbled over, a path or a cell of a
table.
"""

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from protocol.code import PACKAGES
from protocol.errors import ConcorsError, ConfigError

__all__ = ["VARIABLE", "JsonLines", "Nameless", "configure"]

VARIABLE = "CONCORS_LOG"
LEVELS = ("debug", "info", "warning", "error")
FORMS = ("text", "json")
FIELDS = ("site", "study", "stage", "round")


class Nameless(logging.Formatter):
    """Tells where an exception came from and of what kind, but not its text."""

    def formatException(self, ei: Any) -> str:
        lines = []
        error = ei[1]
        while error is not None:
            told = error.sentence if isinstance(error, ConcorsError) else "(its text is not kept)"
            lines.append(f"{type(error).__name__}: {told}")
            lines += (line.rstrip() for line in traceback.format_tb(error.__traceback__))
            error = error.__cause__ or error.__context__
        return "\n".join(lines)


class JsonLines(Nameless):
    """One JSON object a line: when, how grave, who, what, and which study, stage and round."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: getattr(record, key) for key in FIELDS if hasattr(record, key)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, sort_keys=True)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is when something is said."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


_HANDLER = _StandardError()


def _settings(text: str) -> tuple[str, str]:
    level, form = "warning", "text"
    for word in filter(None, (part.strip().lower() for part in text.split(","))):
        if word in LEVELS:
            level = word
        elif word in FORMS:
            form = word
        else:
            raise ConfigError(
                f"{VARIABLE} holds '{word:.20}', expected one of {', '.join(LEVELS)}, one of "
                f"{', '.join(FORMS)}, or both with a comma between."
            )
    return level, form


def configure() -> None:
    """Set our loggers as ``CONCORS_LOG`` says; once more does no harm.

    Raises
    ------
    ConfigError
        If it holds another word.
    """
    level, form = _settings(os.environ.get(VARIABLE, ""))
    plain = Nameless("%(asctime)s %(levelname)s %(name)s: %(message)s")
    _HANDLER.setFormatter(JsonLines() if form == "json" else plain)
    for name in (*PACKAGES, "concors"):
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        if _HANDLER not in logger.handlers:
            logger.addHandler(_HANDLER)
