"""JSON as both sides write and read it: canonical, strict, bounded.

Canonical (sorted keys, no spaces), so that equal documents have equal bytes and can be hashed;
strict, so that a NaN, an infinity or a key that stands twice is refused at the door.
"""

import hashlib
import json
import math
from typing import Any

from protocol.errors import PayloadError

__all__ = ["MAX_DOCUMENT_BYTES", "check_keys", "decode", "digest", "encode", "need"]

MAX_DOCUMENT_BYTES = 8 * 2**20


def encode(document: dict[str, Any], where: str) -> str:
    """Return the canonical JSON text of a document.

    Raises
    ------
    PayloadError
        If it holds a NaN, an infinity, something JSON cannot carry, or exceeds 8 MiB.
    """
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(
            f"{where} holds a value that cannot be sent ({error}); use finite Python numbers, "
            "strings, lists and dicts, and None for what is missing."
        ) from error
    if len(text) > MAX_DOCUMENT_BYTES:
        raise PayloadError(
            f"{where} has {len(text)} bytes, more than {MAX_DOCUMENT_BYTES}; send less."
        )
    return text


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number out of range")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"the value {text}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key that stands twice")
    return document


def decode(text: str, where: str) -> dict[str, Any]:
    """Return the document in a JSON text.

    Raises
    ------
    PayloadError
        If it is larger than 8 MiB, not JSON, not an object, or holds NaN, Infinity, a number that
        overflows, or a repeated key.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise PayloadError(
            f"{where} has {len(text)} bytes, more than {MAX_DOCUMENT_BYTES}; send less."
        )
    try:
        document = json.loads(
            text, parse_float=_finite, parse_constant=_no_constant, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        raise PayloadError(f"{where} is not JSON; both ends must run the same version.") from error
    except (ValueError, RecursionError) as error:
        raise PayloadError(
            f"{where} holds a NaN, an infinite number, a repeated key or too deep a nesting; "
            "send finite numbers, and null for what is missing."
        ) from error
    if not isinstance(document, dict):
        raise PayloadError(f"{where} is not a JSON object; both ends must run the same version.")
    return document


def digest(document: dict[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of a document."""
    return hashlib.sha256(encode(document, "A document").encode()).hexdigest()


def check_keys(document: dict[str, Any], expected: frozenset[str], where: str) -> None:
    """Refuse a document whose keys are not exactly the expected ones.

    Raises
    ------
    PayloadError
        Naming the missing and the number of unknown keys.
    """
    missing = sorted(expected - document.keys())
    unknown = len(document.keys() - expected)
    if missing or unknown:
        raise PayloadError(
            f"{where} lacks {', '.join(missing) or 'nothing'} and has {unknown} unknown key(s); "
            "both ends must run the same version."
        )


def need(condition: bool, where: str, problem: str) -> None:
    """Raise a `PayloadError` about ``where`` unless the condition holds."""
    if not condition:
        raise PayloadError(f"{where}: {problem}; both ends must run the same version.")
