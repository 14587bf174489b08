"""The newest events of a run's audit log, as sentences."""

from collections.abc import Iterable, Mapping
from typing import Any

from server.watching.state import LogLine

__all__ = ["log_lines"]

QUESTIONS = ("query.", "evaluate.")


def log_lines(events: Iterable[Mapping[str, Any]], newest: int = 40) -> tuple[LogLine, ...]:
    """Return the newest events, oldest of them first."""
    lines: list[tuple[str, list[str], str]] = []
    for event in events:
        time = _second(str(event.get("time", "")))
        site, text = _text(event)
        if lines and site and lines[-1][2] == text and lines[-1][1] and site not in lines[-1][1]:
            # One line for all hospitals that did the same thing one after another.
            lines[-1] = (time, [*lines[-1][1], site], text)
        else:
            lines.append((time, [site] if site else [], text))
    told: list[tuple[str, str, int]] = []
    for time, sites, text in lines:
        said = f"{', '.join(sites)}: {text}" if sites else text
        again = told.pop()[2] if told and told[-1][1] == said else 0
        told.append((time, said, again + 1))
    return tuple(
        LogLine(time, f"{said} ({times} times)" if times > 1 else said)
        for time, said, times in told[-newest:]
    )


def _second(time: str) -> str:
    # Microseconds and the offset (always UTC) are of no use to a reader.
    return time[:19] + "Z" if len(time) >= 19 else time


def _text(event: Mapping[str, Any]) -> tuple[str, str]:
    """Return of whom an event tells (empty: of the centre), and what."""
    kind, detail = str(event.get("event", "")), event.get("detail", {})
    if not isinstance(detail, Mapping):
        return "", kind
    site = str(detail.get("site", ""))
    where = f"round {detail.get('round')} of {detail.get('stage')}"
    if kind == "request.sent":
        return "", f"{where} sent to {', '.join(detail.get('sites', ()))}"
    if kind == "reply.accepted":
        return site, f"update counted, {where}"
    if kind == "reply.refused":
        return site, f"left out of {where}, {detail.get('code')}"
    if kind == "sum.opened":
        return "", f"sum of {', '.join(detail.get('sites', ()))} opened, {where}"
    if kind.startswith(QUESTIONS) and "outcome" in detail:
        return site, f"{kind.partition('.')[2]}, {detail['outcome']}"
    # Texts and counts only: a nested value is for those who read the log itself.
    plain = [f"{key} {value}" for key, value in detail.items() if isinstance(value, str | int)]
    return "", f"{kind}: {', '.join(plain)}" if plain else kind
