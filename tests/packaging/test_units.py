"""The systemd units: what systemd itself says of them, and the properties a hospital relies on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
# Where each lives, and the only place it may write to.
PLACES = {
    "concors-server.service": "/var/lib/concors-server",
    "concors-client@.service": "/srv/concors/%i",
}
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "DevicePolicy": "closed",
    "CapabilityBoundingSet": "",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "UMask": "0077",
    "Restart": "always",
    "RestartSec": "10",
    # Our supervisors outlive a child that was killed for its memory.
    "OOMPolicy": "continue",
    "KillMode": "mixed",
}


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Read a unit; a key may stand several times, so each has a list of values."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            section.setdefault(key, []).append(value)
    return sections


def test_every_unit_is_known() -> None:
    assert sorted(path.name for path in UNITS.iterdir()) == sorted(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_a_unit_is_hardened_and_always_restarted(name: str) -> None:
    service, place = unit(name)["Service"], PLACES[name]
    assert {key: service.get(key) for key in HARDENED} == {k: [v] for k, v in HARDENED.items()}
    assert service["User"] == ["concors"]
    assert service["ReadWritePaths"] == [place]
    assert service["WorkingDirectory"] == [place]
    assert service["MemoryMax"][0].endswith("%")
    # No limit of starts: a study of weeks is not given up after five bad minutes.
    assert unit(name)["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert unit(name)["Install"]["WantedBy"] == ["multi-user.target"]


@pytest.mark.parametrize("name", PLACES)
def test_a_unit_starts_our_command_on_its_place(name: str) -> None:
    (command,) = unit(name)["Service"]["ExecStart"]
    program = name.split(".")[0].rstrip("@")
    assert command == f"/opt/concors/bin/{program} start {PLACES[name]}"


def test_only_the_node_sees_devices_and_only_the_gpus() -> None:
    server, client = (unit(name)["Service"] for name in PLACES)
    assert server["PrivateDevices"] == ["yes"]
    assert "DeviceAllow" not in server
    assert client["DeviceAllow"] == ["char-nvidia* rw", "char-drm rw", "char-kfd rw"]


def copied(name: str, folder: Path) -> Path:
    """Copy a unit as it would be installed here, its program being this environment's."""
    text = (UNITS / name).read_text()
    text = text.replace("/opt/concors/bin", str(Path(sys.executable).parent))
    path = folder / name.replace("@", "@alder")
    path.write_text(text)
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed here"
)


@needs_systemd
@pytest.mark.parametrize("name", PLACES)
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    done = analyze("verify", "--man=no", str(copied(name, tmp_path)))
    # An unknown key is only a word on standard error.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_would_find_an_unknown_key(tmp_path: Path) -> None:
    path = copied("concors-server.service", tmp_path)
    path.write_text(path.read_text().replace("RestartSec=10", "RestartSecs=10"))
    assert "RestartSecs" in analyze("verify", "--man=no", str(path)).stderr


@needs_systemd
@pytest.mark.parametrize("name", PLACES)
def test_what_a_unit_exposes_stays_small(name: str, tmp_path: Path) -> None:
    # From 0 to 10, times ten here; an unhardened service has 9.6, these 1.7 and 1.8.
    path = copied(name, tmp_path)
    done = analyze("security", "--offline=true", "--threshold=20", "--no-pager", str(path))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
