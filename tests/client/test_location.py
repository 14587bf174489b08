"""Where the hospital lies is said by the hospital."""

import os
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from client.location import site_directory
from protocol.errors import ConfigError


def context(**node_config: str | int) -> Context:
    return Context(
        run_id=1,
        node_id=2,
        node_config=node_config,
        state=RecordDict(),
        run_config={"site": "/etc"},
    )


def make_site(folder: Path) -> Path:
    folder.mkdir()
    (folder / "site.yaml").write_text("name: x\n")
    return folder


def test_the_nodes_own_setting_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_site(tmp_path / "one"), make_site(tmp_path / "two")
    monkeypatch.setenv("CONCORS_SITES", f"{two}{os.pathsep}{two}")
    assert site_directory(context(site=str(one))) == one


def test_a_numbered_node_takes_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = [make_site(tmp_path / name) for name in ("one", "two")]
    monkeypatch.setenv("CONCORS_SITES", os.pathsep.join(map(str, sites)))
    assert [site_directory(context(**{"partition-id": k})) for k in (0, 1)] == sites


def test_the_run_configuration_of_the_server_is_never_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CONCORS_SITES", raising=False)
    with pytest.raises(ConfigError, match="not told which hospital it is"):
        site_directory(context())


def test_a_directory_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no site\.yaml"):
        site_directory(context(site=str(tmp_path)))
