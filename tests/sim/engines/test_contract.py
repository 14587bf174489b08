"""What every engine checks first, and how it leaves the environment."""

import os
from pathlib import Path

import pytest

from deployment.flower import environment, first_line, no_proxy
from protocol.errors import ConfigError
from sim.engines.contract import check_inputs


def test_environment_is_put_back_whatever_happens_inside(monkeypatch) -> None:
    monkeypatch.setenv("CONCORS_TEST_OLD", "before")
    before = dict(os.environ)
    with pytest.raises(KeyError), environment({"CONCORS_TEST_OLD": "x", "CONCORS_TEST_NEW": "y"}):
        assert os.environ["CONCORS_TEST_OLD"] == "x"
        os.environ["CONCORS_TEST_MORE"] = "set by somebody else inside"
        raise KeyError
    assert dict(os.environ) == before


def test_inputs_come_back_absolute_and_the_run_directory_exists(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").touch()
    Path("a").mkdir()
    study, run, sites = check_inputs(Path("study.yaml"), Path("runs/1"), [Path("a")])
    assert (study, run, sites) == (tmp_path / "study.yaml", tmp_path / "runs/1", (tmp_path / "a",))
    assert run.is_dir()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "^No hospital directory was given; give at least one.$"),
        (["missing"], r"^There is no hospital directory at .*missing; make it or mend the path\.$"),
        (["a", "./a"], "^A hospital directory was given twice; give each hospital once.$"),
        ([f"b{os.pathsep}c"], "in its path, which separates directories in a list; rename it.$"),
    ],
)
def test_refused_hospitals(tmp_path: Path, names: list[str], sentence: str) -> None:
    (tmp_path / "study.yaml").touch()
    for name in ("a", f"b{os.pathsep}c"):
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=sentence):
        check_inputs(tmp_path / "study.yaml", tmp_path / "run", [tmp_path / n for n in names])
    assert not (tmp_path / "run").exists()


def test_missing_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^There is no study file at .*give the path"):
        check_inputs(tmp_path / "study.yaml", tmp_path / "run", [tmp_path])


def test_first_line_is_never_empty() -> None:
    assert first_line("\n  one \n two") == "one"
    assert first_line(" \n") == "no reason was given"


def test_proxy_exemptions_are_kept(monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    assert no_proxy()["NO_PROXY"] == "127.0.0.1,localhost,intranet"
