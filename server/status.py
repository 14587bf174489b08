"""What ``concors-server status`` shows: the server, the hospitals, the runs."""

import json
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from server.admission import hospitals
from server.approval import read_approvals
from server.consortium import Consortium
from server.run_state import read, runs
from server.supervisor import STATUS_FILE, is_supervised

__all__ = ["hospitals_table", "is_well", "progress_lines", "runs_table", "server_line"]

SOON = timedelta(days=30)
# The supervisor looks at the nodes every few seconds; a SuperLink that was killed is back by then.
SILENT = timedelta(minutes=2)


def server_line(consortium: Consortium, now: datetime) -> str:
    """Return one line on the server and its certificate."""
    running = "running" if is_supervised(consortium) else "not running"
    expires = consortium.expires()
    line = (
        f"{consortium.settings.name} at {consortium.settings.address}: {running}; "
        f"certificate valid until {expires:%Y-%m-%d}"
    )
    return line + (", renew it now" if expires - now < SOON else "")


def is_well(consortium: Consortium, now: datetime) -> bool:
    """Say whether the server runs and its SuperLink has answered it in the last two minutes."""
    path = consortium.root / STATUS_FILE
    if not is_supervised(consortium) or not path.is_file():
        return False
    return now - datetime.fromisoformat(json.loads(path.read_text())["time"]) < SILENT


def hospitals_table(consortium: Consortium) -> Table:
    """Return the hospitals, and which of them is connected."""
    nodes = _nodes(consortium)
    table = Table("hospital", "key", "admitted", "state", title="Hospitals")
    for each in hospitals(consortium).values():
        node = nodes.get(each.node_key, {})
        state = node.get("status", "unknown") if each.is_member else "revoked"
        if state == "registered":
            state = "never seen"
        seen = node.get("last_seen", "")
        if state == "offline" and seen:
            state = f"offline since {seen[:16].replace('T', ' ')}"
        table.add_row(each.name, f"{each.fingerprint[:8]}...", each.admitted[:10], state)
    return table


def runs_table(consortium: Consortium) -> Table:
    """Return the runs, what each does, and whom each waits for."""
    table = Table("run", "state", "attempts", "last", "waits for", title="Runs")
    for folder in runs(consortium.runs):
        state = read(folder)
        lines = progress_lines(folder)
        waits = read_approvals(folder) if state.state == "running" else {}
        table.add_row(
            folder.name,
            state.state,
            str(state.attempts),
            state.sentence or (lines[-1] if lines else ""),
            "; ".join(f"{site}: {what}" for site, what in waits.items() if what != "approved"),
        )
    return table


def progress_lines(folder: Path) -> list[str]:
    """Return what a run has done so far, one line a step."""
    path = folder / "progress.jsonl"
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        # A kill may have cut a line short.
        with suppress(json.JSONDecodeError):
            step = json.loads(text)
            note = f" ({step['note']})" if step.get("note") else ""
            lines.append(f"{step['what']}: {step['done']} of {step['total']}{note}")
    return lines


def _nodes(consortium: Consortium) -> dict[str, Any]:
    path = consortium.root / STATUS_FILE
    if not is_supervised(consortium) or not path.is_file():
        return {}
    nodes: dict[str, Any] = json.loads(path.read_text())["nodes"]
    return nodes
