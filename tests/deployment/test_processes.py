"""Processes: one signal reaches a whole family, and no way out leaves one behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployment.processes import free_ports, processes
from protocol.errors import EngineError

# A parent and a child, both deaf to SIGTERM; the child tells when both are.
DEAF = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0: open(sys.argv[1], 'w').close()\n"
    "time.sleep(300)\n"
)


def test_interrupt_ends_even_a_deaf_family(tmp_path: Path, watch) -> None:
    watched = watch(os.getpid())
    with pytest.raises(KeyboardInterrupt), processes(tmp_path / "logs") as running:
        command = [sys.executable, "-c", DEAF, str(tmp_path / "ready")]
        running.start("deaf", command, variables=os.environ, cwd=tmp_path)
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        watched.look()
        assert len(watched.alive()) == 3  # the two, and the undertaker
        running.stop(patience_s=0.2)
        raise KeyboardInterrupt
    assert watched.wait_until_gone(2) == []


def test_the_first_started_goes_last(tmp_path: Path) -> None:
    note = (
        "import signal, sys, time\n"
        "def leave(*_):\n"
        "    print(time.monotonic_ns(), flush=True); sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "open(sys.argv[1], 'w').close()\n"
        "time.sleep(300)\n"
    )
    with processes(tmp_path / "logs") as running:
        for name in ("first", "second"):
            ready = tmp_path / name
            command = [sys.executable, "-c", note, str(ready)]
            running.start(name, command, variables=os.environ, cwd=tmp_path)
            while not ready.exists():
                time.sleep(0.02)
    ends = [int(running.log(name).read_text()) for name in ("first", "second")]
    assert ends[1] < ends[0]


def test_early_end_is_named_with_its_last_error(tmp_path: Path) -> None:
    code = "print('INFO all is well'); print('\\x1b[91mERROR\\x1b[0m no key'); raise SystemExit(3)"
    with processes(tmp_path) as running:
        command = [sys.executable, "-c", code]
        running.start("site-0", command, variables=os.environ, cwd=tmp_path)
        sentence = r"^site-0 ended by itself with code 3 \(ERROR no key\); the rest is in"
        with pytest.raises(EngineError, match=sentence):
            for _ in range(500):
                running.check()
                time.sleep(0.02)


def test_ports_are_different_and_the_first_can_be_asked_for() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert free_ports(2, first=ports[0])[0] == ports[0]


def test_a_killed_launcher_takes_even_a_deaf_family_along(tmp_path: Path, watch) -> None:
    code = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from deployment.processes import processes\n"
        "here = Path(sys.argv[1])\n"
        "with processes(here / 'logs') as running:\n"
        "    command = [sys.executable, '-c', sys.argv[2], str(here / 'ready')]\n"
        "    running.start('deaf', command, variables=dict(os.environ), cwd=here)\n"
        "    time.sleep(300)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), DEAF])
    watched = watch(launcher.pid)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    watched.look()
    assert len(watched.alive()) == 3  # the family of two, and the undertaker
    launcher.kill()
    launcher.wait()
    assert watched.wait_until_gone(5) == []
