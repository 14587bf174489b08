"""One SuperLink and real SuperNodes: the apps' result, their failure, and nothing left behind."""

import os
import socket
import subprocess
import sys
import time

import pytest

from protocol.errors import EngineError
from sim.engines.deployment import run_deployment

pytestmark = pytest.mark.slow
APPS = {"server_app": "adding:server", "client_app": "adding:client"}


def test_refusal_is_the_servers_sentence_and_a_client_still_at_work_is_ended(
    consortium, watch
) -> None:
    job = consortium(2)
    (job.sites[0] / "wait").write_text("250")
    (job.sites[1] / "refuse").write_text(str(job.sites[0] / "waiting"))
    watched = watch(os.getpid())
    log = job.run_dir / "deployment" / "logs" / "study.log"
    with pytest.raises(EngineError) as caught:
        run_deployment(job.study_file, job.run_dir, job.sites, timeout_s=120, **APPS)
    assert caught.value.sentence == (
        "One hospital refused the round (E200 the hospital cannot train); ask it why. "
        f"The server's log is {log}."
    )
    assert "QuorumError" in log.read_text()
    # The server and each hospital, in a process of its own.
    pids = {int((folder / "pid").read_text()) for folder in (job.run_dir, *job.sites)}
    assert len(pids) == 3
    assert pids <= watched.seen.keys()


def test_nothing_outlives_a_launcher_that_is_killed(consortium, watch) -> None:
    job = consortium(1)
    (job.sites[0] / "wait").write_text("120")
    arguments = [str(path) for path in (job.study_file, job.run_dir, *job.sites)]
    code = (
        "import sys; from pathlib import Path\n"
        "from sim.engines.deployment import run_deployment\n"
        "study, run, *sites = map(Path, sys.argv[1:])\n"
        "apps = {'server_app': 'adding:server', 'client_app': 'adding:client'}\n"
        "run_deployment(study, run, sites, **apps)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, *arguments])
    watched = watch(child.pid)
    deadline = time.monotonic() + 300
    while not (job.sites[0] / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    watched.look()
    assert len(watched.alive()) >= 5  # SuperLink, SuperExec and app, SuperNode and app
    child.kill()
    child.wait()
    assert watched.wait_until_gone(20) == []


def test_port_in_use_is_named(consortium) -> None:
    job = consortium(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=rf"^Port {port} on 127.0.0.1 cannot be used"):
            run_deployment(job.study_file, job.run_dir, job.sites, port=port, **APPS)
