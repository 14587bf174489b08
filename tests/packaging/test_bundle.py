"""The folder for a machine without a network: its lock, and an installation from it."""

import ensurepip
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BUNDLE = Path(__file__).resolve().parents[2] / "scripts" / "bundle"


def wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """Write a wheel of one module that says its version."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def own_pip(folder: Path) -> Path:
    """Copy the pip that Python brings along."""
    (bundled,) = Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
    (folder / "pip").mkdir(parents=True)
    return Path(shutil.copy(bundled, folder / "pip"))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lock(out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BUNDLE), str(out), "--lock"], capture_output=True, text=True
    )


def install(out: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(out / "install.sh"), str(target)],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )


def test_the_lock_names_every_wheel_by_its_bytes(tmp_path: Path) -> None:
    paths = [wheel(tmp_path / "wheels", "Heart_Parts", "1.0"), wheel(tmp_path / "wheels", "b", "2")]
    tool = own_pip(tmp_path)
    done = lock(tmp_path)
    assert done.returncode == 0, done.stderr
    hashes = [digest(path.read_bytes()) for path in paths]
    text = (tmp_path / "requirements.lock").read_text()
    assert text.splitlines() == [
        f"heart-parts==1.0 --hash=sha256:{hashes[0]}",
        f"b==2 --hash=sha256:{hashes[1]}",
    ]
    # One number to read out stands for the lock, the wheels and the script that installs them.
    sums = (tmp_path / "SHA256SUMS").read_text()
    assert digest(sums.encode()) in done.stdout
    files = [*(f"wheels/{path.name}" for path in paths), f"pip/{tool.name}"]
    files += ["requirements.lock", "install.sh"]
    assert sums.splitlines() == [
        f"{digest((tmp_path / name).read_bytes())}  {name}" for name in files
    ]


def test_a_local_version_and_a_build_number_are_read(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    own_pip(tmp_path)
    for name in ("torch-2.13.0+cpu-cp311-cp311-linux_x86_64", "x-1-2b-py3-none-any"):
        (tmp_path / "wheels" / f"{name}.whl").write_bytes(b"")
    assert lock(tmp_path).returncode == 0
    lines = (tmp_path / "requirements.lock").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["torch==2.13.0+cpu", "x==1"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "lacks wheels/ or the one of pip/"),
        (["a-1.0.tar.gz"], "wheels/a-1.0.tar.gz is no wheel; remove it."),
        (["a_b-1-py3-none-any.whl", "a.b-2-py3-none-any.whl"], "a-b lies there twice"),
    ],
)
def test_what_cannot_be_locked_is_named(tmp_path: Path, names: list[str], sentence: str) -> None:
    (tmp_path / "wheels").mkdir()
    for name in names:
        (tmp_path / "wheels" / name).write_bytes(b"")
    done = lock(tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not (tmp_path / "requirements.lock").exists()


def test_wheels_of_before_are_not_locked_with_the_new_ones(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "old", "1")
    done = subprocess.run(
        [sys.executable, str(BUNDLE), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "is not empty" in done.stderr


@pytest.mark.slow
def test_a_machine_without_an_index_installs_it_and_refuses_changed_bytes(tmp_path: Path) -> None:
    out, target = tmp_path / "bundle", tmp_path / "env"
    wheel(out / "wheels", "heart", "1.0", requires="parts>=2")
    path = wheel(out / "wheels", "parts", "2.5")
    own_pip(out)
    assert lock(out).returncode == 0

    whole = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.py", "")
    done = install(out, target)
    assert done.returncode == 1
    assert "wheels/parts-2.5-py3-none-any.whl: FAILED" in done.stdout
    assert not target.exists()
    # pip looks for itself, should the sums have been changed with the wheel.
    sums = (out / "SHA256SUMS").read_text()
    changed = sums.replace(digest(whole), digest(path.read_bytes()))
    (out / "SHA256SUMS").write_text(changed)
    done = install(out, target)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not list(target.glob("lib/*/site-packages/heart.py"))
    shutil.rmtree(target)

    path.write_bytes(whole)
    (out / "SHA256SUMS").write_text(sums)
    done = install(out, target)
    assert done.returncode == 0, done.stderr
    told = "import heart, parts; print(heart.version, parts.version)"
    said = subprocess.run([target / "bin" / "python", "-c", told], capture_output=True, text=True)
    assert said.stdout == "1.0 2.5\n", said.stderr

    # What is there already is not looked at again, so nothing is installed over it.
    done = install(out, target)
    assert done.returncode == 1
    assert "is there already" in done.stderr
