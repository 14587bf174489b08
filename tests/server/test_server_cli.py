"""``concors-server`` as a coordinator meets it."""

import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from server.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


def test_check_says_who_trains_and_what_a_round_sends() -> None:
    done = run("check", str(CONFIGS / "quick.yaml"))
    assert done.returncode == 0, done.stderr
    assert "alder, birch" in done.stdout
    assert "MB down and up" in " ".join(done.stdout.replace("│", " ").split())


def test_a_wrong_study_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("study: {name: s, seed: 1, hospitals: {train: [a]}, colour: red}")
    done = run("check", str(path))
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "E100 study.yaml: unknown key 'colour' in the top level; correct the file and start again."
    )


def test_report_of_a_folder_without_results_is_one_sentence(tmp_path: Path) -> None:
    done = run("report", str(tmp_path))
    assert done.returncode == 1
    assert "results.json is not a results file" in done.stderr
    assert "Traceback" not in done.stderr
