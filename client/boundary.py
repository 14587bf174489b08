"""The hospital's last door: nothing but an agreed reply or a sentence of ours leaves.

Flower sends the text of an exception to the server word for word, and that text can hold a path, a
tag or a name. So every handler is wrapped here; where it failed stands in the hospital's own log.
"""

import logging
from collections.abc import Callable
from functools import wraps
from logging.handlers import RotatingFileHandler
from pathlib import Path

from flwr.app import Context, Message

from client.location import site_directory
from client.recording import record_refusal
from deployment.logs import Nameless
from protocol.errors import ConcorsError, WorkerError
from protocol.payload import Refusal

__all__ = ["guarded", "out_of_memory"]

Handler = Callable[[Message, Context], Message]
UNEXPECTED = "E900"


def guarded(handler: Handler) -> Handler:
    """Wrap a ClientApp function so that a failure leaves as a code and a sentence of ours."""

    @wraps(handler)
    def reply(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except ConcorsError as error:
            refusal = Refusal.of(error)
            _log(context, handler.__name__, error)
        except MemoryError as error:
            refusal = Refusal.of(out_of_memory())
            _log(context, handler.__name__, error)
        except Exception as error:  # noqa: BLE001 - the one place where everything must be caught
            refusal = Refusal(
                UNEXPECTED,
                f"The client failed unexpectedly in {handler.__name__}; where, and with what kind "
                "of error, stands in the hospital's own log, .concors/client.log, and nowhere "
                "else.",
            )
            _log(context, handler.__name__, error)
        record_refusal(message, context, refusal)
        return Message(refusal.to_error(), reply_to=message)

    return reply


def out_of_memory() -> WorkerError:
    """Return the error of a worker that had too little memory."""
    return WorkerError(
        "The hospital's worker ran out of memory; give the machine more, or the study smaller "
        "batches or images."
    )


def _log(context: Context, where: str, error: Exception) -> None:
    """Append the traceback to the hospital's own log, as far as there is a hospital to write to."""
    try:
        folder = site_directory(context) / ".concors"
        folder.mkdir(exist_ok=True)
        handler = _file(folder / "client.log")
    except (ConcorsError, OSError):
        return
    record = logging.LogRecord(
        "concors",
        logging.ERROR,
        where,
        0,
        "failed in %s",
        (where,),
        (type(error), error, error.__traceback__),
    )
    handler.handle(record)
    handler.close()


def _file(path: Path) -> RotatingFileHandler:
    handler = RotatingFileHandler(path, maxBytes=5_000_000, backupCount=3, encoding="utf-8")
    handler.setFormatter(Nameless("%(asctime)s %(levelname)s %(message)s"))
    return handler
