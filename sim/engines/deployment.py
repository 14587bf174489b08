"""The two apps as one SuperLink and one SuperNode per hospital: real processes on loopback.

Each party is what it would be on its own machine: its own Flower home, its own key, a process
that waits for work (SuperLink or SuperNode) and one that does it (at the server a SuperExec, which
starts the app; at a hospital `sim.engines.hospital`), bound to each other by a secret only the two
can read. Traffic between SuperLink and SuperNodes is encrypted, and only registered keys may join.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from client.node.arrivals import VARIABLE
from deployment.bundle import write_bundle
from deployment.certificates import new_key
from deployment.control import Control
from deployment.flower import HOST, program, variables
from deployment.node_keys import write_node_key
from deployment.papers import make_request
from deployment.private_files import make_private_dir, write_private
from deployment.processes import Processes, free_ports, processes
from server.admission import admit, hospitals
from server.consortium import Consortium, Settings
from server.founding import create
from server.membership import align
from sim.engines.contract import (
    RUN_DIR_KEY,
    RUN_VARIABLE,
    SITES_VARIABLE,
    STUDY_KEY,
    STUDY_VARIABLE,
    check_inputs,
)

__all__ = ["run_deployment"]


def run_deployment(
    study_file: Path,
    run_dir: Path,
    sites: Sequence[Path],
    *,
    port: int = 0,
    work_dir: Path | None = None,
    server_app: str = "server.app:app",
    client_app: str = "client.app:app",
    start_timeout_s: float = 120.0,
    timeout_s: float = 24 * 3600.0,
) -> None:
    """Run a study as one SuperLink and one SuperNode per hospital, and stop them all.

    Parameters
    ----------
    study_file, run_dir : Path
        The study, and where the server writes its results.
    sites : sequence of Path
        One directory per hospital.
    port : int
        The SuperLink's TCP port; 0 takes a free one. The SuperNodes always take free ones.
    work_dir : Path, optional
        Where keys (removed at the end), Flower's files and the processes' output go;
        ``<run_dir>/deployment`` when not given.
    server_app, client_app : str
        ``module:attribute`` of the two apps, importable in this environment. The bundle that
        Flower distributes holds these two names and no code.
    start_timeout_s : float
        Seconds for the SuperLink to answer, and again for all SuperNodes to be connected.
    timeout_s : float
        Seconds for the whole study; past that it is stopped.

    Raises
    ------
    ConfigError
        When an input is missing.
    EngineError
        When a process does not start or ends too early, when the study fails (the sentence is
        the server's), or when it takes too long.
    """
    study_file, run_dir, sites = check_inputs(study_file, run_dir, sites)
    work_dir = (work_dir or run_dir / "deployment").resolve()
    make_private_dir(work_dir)
    bundle = write_bundle(
        work_dir / "app", (STUDY_KEY, RUN_DIR_KEY), server_app=server_app, client_app=client_app
    )
    port, own_port, *node_ports = free_ports(2 + len(sites), first=port)
    root = work_dir / "consortium"
    # What a killed run left, with keys that nobody knows any more.
    shutil.rmtree(root, ignore_errors=True)
    try:
        consortium = _make_consortium(root, port, len(sites))
        with processes(work_dir / "logs") as running:
            address = f"{HOST}:{own_port}"
            secret = _start_superlink(running, work_dir, consortium, own_port)
            with Control(address, consortium.authority, running.check, secret) as control:
                control.wait_until_up(start_timeout_s)
                _start_superexec(running, work_dir, address, consortium.authority)
                align(control, hospitals(consortium), control.nodes())
                for number, (site, node_port) in enumerate(zip(sites, node_ports, strict=True)):
                    hospital = _Hospital(f"site-{number}", site, node_port)
                    _start_site(running, work_dir, consortium, hospital, client_app)
                control.wait_for_nodes(len(sites), start_timeout_s)
                run_id = control.submit(
                    bundle, {STUDY_KEY: str(study_file), RUN_DIR_KEY: str(run_dir)}
                )
                control.wait_for_run(run_id, timeout_s, running.log("study"))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _make_consortium(root: Path, port: int, num_sites: int) -> Consortium:
    """Make a consortium of this machine alone, and admit its hospitals."""
    now = datetime.now(UTC)
    settings = Settings(name="loopback", address=f"{HOST}:{port}", listen=HOST)
    consortium = create(root, settings, now=now)
    for number in range(num_sites):
        key, name = new_key(), f"site-{number}"
        write_node_key(root / f"{name}.key", key)
        request = make_request(name, key, version=version("concors"), now=now)
        admit(consortium, request, replace_key=False, now=now)
    for party in ("server", *(f"site-{number}" for number in range(num_sites))):
        write_private(root / f"{party}.secret", secrets.token_bytes(32))
    return consortium


def _variables(home: Path) -> dict[str, str]:
    """Return a party's environment, without the variables that name studies and hospitals."""
    return variables(home, frozenset({STUDY_VARIABLE, RUN_VARIABLE, SITES_VARIABLE}))


def _start_superlink(
    running: Processes, work_dir: Path, consortium: Consortium, own_port: int
) -> bytes:
    """Start the SuperLink and return the secret it shares with us."""
    secret = consortium.root / "server.secret"
    command = [sys.executable, "-m", "server.superlink", str(consortium.root)]
    command += ["--own-port", str(own_port), "--secret", str(secret)]
    running.start("server", command, variables=_variables(work_dir / "server"), cwd=work_dir)
    return secret.read_bytes()


def _start_superexec(running: Processes, work_dir: Path, address: str, authority: Path) -> None:
    """Start the process that starts the server's app."""
    secret = work_dir / "consortium" / "server.secret"
    command = [program("flower-superexec"), "--runtime-api-address", address]
    command += ["--root-certificates", str(authority)]
    command += ["--superexec-auth-secret-file", str(secret), "--parent-pid", str(os.getpid())]
    running.start("server-exec", command, variables=_variables(work_dir / "server"), cwd=work_dir)


class _Hospital(NamedTuple):
    party: str
    site: Path
    port: int


def _start_site(
    running: Processes,
    work_dir: Path,
    consortium: Consortium,
    hospital: _Hospital,
    client_app: str,
) -> None:
    """Start a hospital's SuperNode, and the process that answers what arrives there."""
    party, root = hospital.party, consortium.root
    secret, arrivals = root / f"{party}.secret", work_dir / party / "arrivals"
    own = {**_variables(work_dir / party), VARIABLE: str(arrivals)}
    command = [sys.executable, "-P", "-m", "client.node.supernode"]
    command += ["--superlink", consortium.settings.address]
    command += ["--root-certificates", str(consortium.authority)]
    command += ["--auth-supernode-private-key", str(root / f"{party}.key")]
    command += ["--host", HOST, "--port", str(hospital.port)]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]
    running.start(party, command, variables=own, cwd=work_dir)
    # Between these two, on one machine and with a shared secret, TLS would protect nothing.
    command = [sys.executable, "-P", "-m", "sim.engines.hospital", str(hospital.site)]
    command += ["--app", client_app, "--port", str(hospital.port)]
    command += ["--secret", str(secret), "--arrivals", str(arrivals)]
    running.start(f"{party}-app", command, variables=own, cwd=work_dir)
