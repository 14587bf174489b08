"""The two apps as one SuperLink and one SuperNode per hospital: real processes on loopback.

Each party is what it would be on its own machine: its own Flower home, its own key, a process
that waits for work (SuperLink or SuperNode) and a process that starts the app for each piece of
work (SuperExec), bound to each other by a secret only the two can read. Traffic between
SuperLink and SuperNodes is encrypted, and only registered keys may join.
"""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import tomli_w

from deployment.control import Control
from deployment.credentials import Credentials, make_credentials
from deployment.flower import HOST, program, variables
from deployment.processes import Processes, free_ports, processes
from sim.engines.contract import (
    RUN_DIR_KEY,
    RUN_VARIABLE,
    SITE_KEY,
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
    work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    app_dir = _write_bundle(work_dir / "app", server_app, client_app)
    keys_dir = work_dir / "keys"
    try:
        keys = make_credentials(keys_dir, len(sites), now=datetime.now(UTC))
        with processes(work_dir / "logs") as running:
            own_port, *node_ports = free_ports(1 + len(sites), first=port)
            address = f"{HOST}:{own_port}"
            _start_superlink(running, work_dir, keys, address)
            with Control(address, keys.authority, running.check) as control:
                control.wait_until_up(start_timeout_s)
                _start_superexec(running, work_dir, "server", address, keys.secret, keys.authority)
                for number, (site, site_key) in enumerate(zip(sites, keys.sites, strict=True)):
                    control.register(site_key.public_pem, f"site-{number}")
                    _start_site(running, work_dir, keys, number, site, address, node_ports[number])
                control.wait_for_nodes(len(sites), start_timeout_s)
                run_id = control.submit(
                    app_dir, {STUDY_KEY: str(study_file), RUN_DIR_KEY: str(run_dir)}
                )
                control.wait_for_run(run_id, timeout_s, running.log("study"))
    finally:
        shutil.rmtree(keys_dir, ignore_errors=True)


def _write_bundle(app_dir: Path, server_app: str, client_app: str) -> Path:
    """Write the thin bundle: a ``pyproject.toml`` that names the installed apps."""
    app_dir.mkdir(parents=True, exist_ok=True)
    project = {
        "project": {"name": "concors-app", "version": "0.1.0"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "concors",
                    "components": {"serverapp": server_app, "clientapp": client_app},
                    # A run may only override keys that stand here; "" says "not given". The
                    # study is no part of the bundle, so that its hash tells the code alone.
                    "config": {STUDY_KEY: "", RUN_DIR_KEY: ""},
                }
            }
        },
    }
    (app_dir / "pyproject.toml").write_text(tomli_w.dumps(project), encoding="utf-8")
    return app_dir


def _variables(home: Path) -> dict[str, str]:
    """Return a party's environment, without the variables that name studies and hospitals."""
    return variables(home, frozenset({STUDY_VARIABLE, RUN_VARIABLE, SITES_VARIABLE}))


def _start_superlink(running: Processes, work_dir: Path, keys: Credentials, address: str) -> None:
    host, port = address.split(":")
    command = [program("flower-superlink"), "--host", host, "--port", port]
    command += ["--ssl-ca-certfile", str(keys.authority), "--ssl-certfile", str(keys.certificate)]
    command += ["--ssl-keyfile", str(keys.key), "--enable-supernode-auth"]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(keys.secret)]
    command += ["--disable-runtime-dependency-installation"]
    running.start("server", command, variables=_variables(work_dir / "server"), cwd=work_dir)


def _start_superexec(
    running: Processes,
    work_dir: Path,
    party: str,
    address: str,
    secret: Path,
    authority: Path | None = None,
) -> None:
    """Start the process that starts ``party``'s app; ``authority`` when its address speaks TLS."""
    command = [program("flower-superexec"), "--runtime-api-address", address]
    command += ["--root-certificates", str(authority)] if authority else ["--insecure"]
    command += ["--superexec-auth-secret-file", str(secret), "--parent-pid", str(os.getpid())]
    running.start(f"{party}-exec", command, variables=_variables(work_dir / party), cwd=work_dir)


def _start_site(
    running: Processes,
    work_dir: Path,
    keys: Credentials,
    number: int,
    site: Path,
    superlink: str,
    port: int,
) -> None:
    party = f"site-{number}"
    home = work_dir / party
    home.mkdir(parents=True, exist_ok=True)
    # In a file, a path needs no quoting rules but TOML's own.
    node_config = home / "node.toml"
    node_config.write_text(tomli_w.dumps({SITE_KEY: str(site)}), encoding="utf-8")
    key = keys.sites[number]
    command = [program("flower-supernode"), "--superlink", superlink]
    command += ["--root-certificates", str(keys.authority)]
    command += ["--auth-supernode-private-key", str(key.private)]
    command += ["--node-config", str(node_config), "--host", HOST, "--port", str(port)]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(key.secret)]
    running.start(party, command, variables=_variables(home), cwd=work_dir)
    # Between these two, on one machine and with a shared secret, TLS would protect nothing.
    _start_superexec(running, work_dir, party, f"{HOST}:{port}", key.secret)
