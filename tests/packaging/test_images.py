"""The container images and compose files: who runs, what is in, what may be written.

Nothing is built here: that takes a daemon, an index and minutes.
"""

import fnmatch
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from client.cli import app as client_app
from protocol.code import PACKAGES
from server.cli import app as server_app

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "packaging" / "docker"
SIDES = {"client": "/site", "server": "/server"}
SECRET = re.compile(r"key|secret|token|passw|credential|\.pem|\.crt", re.IGNORECASE)


def instructions(side: str) -> list[tuple[str, str]]:
    """Return (instruction, rest) of a Dockerfile, continued lines joined, comments left out."""
    text = (DOCKER / f"{side}.Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    parts = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, rest in parts]


CHECKS = {
    "client": ["concors-client", "preflight", "/site"],
    "server": ["concors-server", "status", "/server", "--well"],
}


@pytest.mark.parametrize("side", SIDES)
def test_health_is_judged_by_our_own_command(side: str) -> None:
    (check,) = of(side, "HEALTHCHECK")
    assert json.loads(check[check.index("[") :]) == CHECKS[side]
    program, command, _, *flags = CHECKS[side]
    group: Any = typer.main.get_command({"client": client_app, "server": server_app}[side])
    known = {flag for parameter in group.commands[command].params for flag in parameter.opts}
    assert program == f"concors-{side}"
    assert set(flags) <= known


def of(side: str, word: str) -> list[str]:
    return [rest for each, rest in instructions(side) if each == word]


@pytest.mark.parametrize("side", SIDES)
def test_the_image_runs_our_command_as_a_fixed_user_and_not_as_root(side: str) -> None:
    last_stage = max(i for i, (word, _) in enumerate(instructions(side)) if word == "FROM")
    final = instructions(side)[last_stage:]
    assert [rest for word, rest in final if word == "USER"] == ["10101:10101"]
    # The user is made before it is changed to, and nothing is installed after that.
    assert [word for word, _ in final].index("USER") > [word for word, _ in final].index("RUN")
    assert ("ENTRYPOINT", f'["concors-{side}"]') in final
    assert ("CMD", f'["start", "{SIDES[side]}"]') in final
    assert ("WORKDIR", SIDES[side]) in final


@pytest.mark.parametrize("side", SIDES)
def test_the_base_image_is_the_operators_choice(side: str) -> None:
    froms = of(side, "FROM")
    assert froms == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]
    arguments = of(side, "ARG")
    # No default: the operator names an image, and pins it.
    assert arguments == ["BASE_IMAGE", "VARIANT=cpu", "TORCH_INDEX="]
    assert not re.search(
        r"https?://|docker\.io|ghcr|quay", "\n".join(rest for _, rest in instructions(side))
    )


@pytest.mark.parametrize("side", SIDES)
def test_the_build_refuses_a_torch_of_the_other_variant(side: str) -> None:
    (check,) = [rest for rest in of(side, "RUN") if "VARIANT" in rest]
    script = check[check.index("found=") :].replace("/opt/concors/bin/python -c", "echo")
    script = re.sub(r'echo "import torch; [^"]*"', "echo $INSTALLED", script)
    for installed, wanted, code in (("gpu", "gpu", 0), ("cpu", "cpu", 0), ("gpu", "cpu", 1)):
        done = subprocess.run(
            ["sh", "-c", script],
            env={"INSTALLED": installed, "VARIANT": wanted, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
    assert "set TORCH_INDEX" in done.stderr


@pytest.mark.parametrize("side", SIDES)
def test_what_is_copied_exists_and_is_let_through(side: str) -> None:
    copies = [rest.split() for rest in of(side, "COPY")]
    sources = [source for copy in copies if not copy[0].startswith("--") for source in copy[:-1]]
    # Both ends compare one hash over all packages, so every image has them all.
    assert set(PACKAGES) <= set(sources)
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in ignored
    assert "ADD" not in dict(instructions(side))


@pytest.mark.parametrize("side", SIDES)
def test_no_secret_goes_into_the_image(side: str) -> None:
    for word in ("ENV", "ARG", "COPY", "LABEL"):
        for rest in of(side, word):
            assert not SECRET.search(rest), f"{word} {rest}"


def test_nothing_but_what_is_needed_reaches_the_builder() -> None:
    lines = [
        line
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    let_through = {line[1:] for line in lines if line.startswith("!")}
    files = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert let_through == {*PACKAGES, *files}
    # What is refused again stands last, as the last line that fits decides.
    again = lines[1 + len(let_through) :]
    for name in ("client/.concors", "server/ca.key", "client/node.pem", "sim/__pycache__"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in again), name


def services(side: str) -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((DOCKER / f"compose.{side}.yaml").read_text())
    found: dict[str, dict[str, Any]] = content["services"]
    return found


EVERY = [(side, name) for side in SIDES for name in services(side)]


@pytest.mark.parametrize(("side", "name"), EVERY)
def test_a_service_can_write_to_its_own_directory_only(side: str, name: str) -> None:
    service = services(side)[name]
    assert service["read_only"] is True
    assert [entry.split(":")[0] for entry in service["tmpfs"]] == ["/tmp"]  # noqa: S108
    assert [(v["type"], v["target"]) for v in service["volumes"]] == [("bind", SIDES[side])]
    assert service["command"] == ["start", SIDES[side]]


@pytest.mark.parametrize(("side", "name"), EVERY)
def test_a_service_has_no_rights_and_bounds(side: str, name: str) -> None:
    service = services(side)[name]
    assert service["user"] == "10101:10101"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert service["restart"] == "always"
    assert {"mem_limit", "pids_limit", "stop_grace_period"} <= set(service)
    assert not SECRET.search(str(service.get("environment", "")))


def test_a_hospital_opens_no_port_and_only_one_service_has_a_gpu() -> None:
    assert all("ports" not in service for service in services("client").values())
    assert len(services("server")["server"]["ports"]) == 1
    with_gpu = [
        name for side in SIDES for name, service in services(side).items() if "deploy" in service
    ]
    assert with_gpu == ["gpu"]
    assert services("client")["cpu"].get("profiles") == ["cpu"]
