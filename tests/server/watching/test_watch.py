"""``concors-server watch`` in a pipe and in a terminal."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from server.progress import ENDED, Progress
from server.watching.state import HospitalState, LogLine, RoundState, RunState
from server.watching.table import run_table

COMMAND = [sys.executable, "-c", "from server.cli import main; main()", "watch"]


def text(state: RunState, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(run_table(state, width))
    return captured.get()


def test_in_a_pipe_it_prints_one_table_and_ends(recorded_run: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(recorded_run)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "recorded: finished" in done.stdout
    assert done.stdout.count("Hospitals") == 1
    for name in ("alder", "birch", "cedar", "elm"):
        assert name in done.stdout
    assert "\x1b" not in done.stdout


def test_in_a_terminal_it_follows_the_run_to_its_end(recorded_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(recorded_run, folder)
    lines = (folder / "progress.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["what"] == ENDED
    (folder / "progress.jsonl").write_text("".join(lines[:-4]))
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    with subprocess.Popen(
        [*COMMAND, str(folder)], stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while b"recorded" not in shown:
            shown += os.read(ours, 65536)
        assert b"finished" not in shown
        with (folder / "progress.jsonl").open("a") as file:
            file.write("".join(lines[-4:]))
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        os.close(ours)
        assert process.wait(60) == 0
    assert b"The study is finished" in shown


def test_a_failed_run_is_exit_code_1_and_its_sentence(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    progress.asked("join", 0, 1, ["A"])
    progress.step(ENDED, 1, 1, "failed", code="E500", sentence="A did not join [within] 5 s.")
    done = subprocess.run([*COMMAND, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "failed, E500" in done.stdout and "A did not join [within] 5 s." in done.stdout


def test_what_hospitals_say_is_shown_as_it_is_and_never_as_style() -> None:
    hospital = HospitalState("A", "train", "left out", "E200", "[bold]No[/bold] disk.", 2, 7, 1.25)
    done = RoundState("segment", 1, 2.0, 3, ("A",), 3.5, 1.25, 1.0)
    shown = text(
        RunState("s", "running", "[red]Round[/red] 2.", hospitals=(hospital,), rounds=(done,))
    )
    assert "[bold]No[/bold] disk." in shown and "[red]Round[/red] 2." in shown
    assert "1.25" in shown and "3.50" in shown


def test_a_narrow_terminal_gets_no_log() -> None:
    state = RunState("s", "running", "x", log=(LogLine("2026-03-02T12:00:00Z", "asked"),))
    assert "asked" in text(state, 80) and "asked" not in text(state, 50)
