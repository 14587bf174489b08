"""The newest events of a run's audit log, as sentences."""

from collections.abc import Iterable, Mapping
from typing import Any

from server.watching.state import LogLine

__all__ = ["log_lines"]

QUESTIONS = ("query.", "evaluate.")


def log_lines(events: Iterable[Mapping[str, Any]], newest: int = 40) -> tuple[LogLine, ...]:
    """Return the newest events, oldest of them first."""
    kept = list(events)[-newest:]
    return tuple(LogLine(_second(str(event.get("time", ""))), _text(event)) for event in kept)


def _second(time: str) -> str:
    # Microseconds and the offset (always UTC) are of no use to a reader.
    return time[:19] + "Z" if len(time) >= 19 else time


def _text(event: Mapping[str, Any]) -> str:
    kind, detail = str(event.get("event", "")), event.get("detail", {})
    if not isinstance(detail, Mapping):
        return kind
    site = detail.get("site", "a hospital")
    where = f"round {detail.get('round')} of {detail.get('stage')}"
    if kind == "request.sent":
        return f"{where} sent to {', '.join(detail.get('sites', ()))}"
    if kind == "reply.accepted":
        return f"{site}: update counted, {where}"
    if kind == "reply.refused":
        return f"{site}: left out of {where}, {detail.get('code')}"
    if kind == "sum.opened":
        return f"sum of {', '.join(detail.get('sites', ()))} opened, {where}"
    if kind.startswith(QUESTIONS) and "outcome" in detail:
        return f"{site}: {kind.partition('.')[2]}, {detail['outcome']}"
    # Texts and counts only: a nested value is for those who read the log itself.
    plain = [f"{key} {value}" for key, value in detail.items() if isinstance(value, str | int)]
    return f"{kind}: {', '.join(plain)}" if plain else kind
