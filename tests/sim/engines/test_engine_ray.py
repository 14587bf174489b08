"""The Ray engine: the apps' result, their failure, and nothing left behind."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from protocol.errors import QuorumError

pytest.importorskip("ray")

from protocol.errors import EngineError
from sim.engines.ray import run_ray

pytestmark = pytest.mark.slow
APPS = {"server_app": "adding:server", "client_app": "adding:client"}


def test_refusal_is_the_servers_own_error_and_a_client_still_at_work_is_ended(
    consortium, watch, caplog
) -> None:
    job = consortium(2)
    (job.sites[0] / "wait").write_text("250")
    (job.sites[1] / "refuse").write_text(str(job.sites[0] / "waiting"))
    watched = watch(os.getpid())
    sentence = r"^One hospital refused the round \(E200 .*\); ask it why\.$"
    with caplog.at_level(logging.WARNING), pytest.raises(QuorumError, match=sentence):
        run_ray(job.study_file, job.run_dir, job.sites, grace_s=0.5, **APPS)
    # The server here, and each hospital in a process of its own.
    server, *hospitals = (int((d / "pid").read_text()) for d in (job.run_dir, *job.sites))
    assert server == os.getpid()
    assert len({server, *hospitals}) == 3
    assert set(hospitals) <= watched.seen.keys()
    assert "deprecated" not in caplog.text


def test_interrupt_ends_server_clients_and_ray(consortium, watch) -> None:
    job = consortium(2)
    (job.sites[0] / "wait").write_text("120")
    arguments = [str(path) for path in (job.study_file, job.run_dir, *job.sites)]
    # A suite that runs in the background has SIGINT ignored, and children inherit that.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys; from pathlib import Path; from sim.engines.ray import run_ray\n"
        "study, run, *sites = map(Path, sys.argv[1:])\n"
        "run_ray(study, run, sites, server_app='adding:server', client_app='adding:client')\n"
    )
    output = (job.run_dir.parent / "output").open("w+")
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=output, stderr=subprocess.STDOUT
    )
    watched = watch(child.pid)
    deadline = time.monotonic() + 150
    while not (job.sites[0] / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    try:
        child.wait(timeout=90)
    finally:
        child.kill()
        child.wait()
        text = (job.run_dir.parent / "output").read_text()
        output.close()
    # Not necessarily last: Flower's own threads may still have logged that their workers died.
    assert "\nKeyboardInterrupt\n" in text
    assert len(watched.seen) > 2
    assert watched.wait_until_gone(20) == []


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("nowhere.app:app", "^The app nowhere.app:app cannot be imported .*install the package"),
        ("adding:NUM_ROUNDS", "^adding:NUM_ROUNDS is a int, not a ServerApp; name the module"),
    ],
)
def test_app_that_is_none(consortium, reference: str, sentence: str) -> None:
    job = consortium(1)
    with pytest.raises(EngineError, match=sentence):
        run_ray(job.study_file, job.run_dir, job.sites, server_app=reference)
