"""The folders of a consortium's runs: made, started again, stopped."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import yaml

from deployment.private_files import make_private_dir, write_atomic
from protocol.config import Study, load_study
from protocol.errors import ConfigError
from server.admission import hospitals
from server.consortium import Consortium
from server.manifest import write_manifest
from server.run_state import State, change, read, runs
from server.starting import begin_from

__all__ = ["STUDY_FILE", "find_run", "new_run", "resume_run", "stop_run"]

STUDY_FILE = "study.yaml"


def new_run(
    consortium: Consortium,
    study: Study,
    *,
    now: datetime,
    lifetime: timedelta,
    start_from: Path | None = None,
) -> Path:
    """Make the folder ``runs/<study>-<n>`` of a run that the supervisor starts when it sees it.

    Parameters
    ----------
    lifetime : timedelta
        How long the manifest is valid: for so long hospitals take part.
    start_from : Path, optional
        Folder of a finished run whose networks training begins from.

    Raises
    ------
    ConfigError
        If a hospital of the study is no member.
    """
    members = {name for name, each in hospitals(consortium).items() if each.is_member}
    missing = [name for name in study.hospitals.all if name not in members]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} of study {study.name} did not join this consortium; admit "
            f"their requests first, or correct the names (members: {', '.join(sorted(members))})."
        )
    folder = _new_folder(consortium, study.name)
    if start_from is not None:
        try:
            study = begin_from(study, start_from, [folder])
        except ConfigError:
            folder.rmdir()
            raise
    text = yaml.safe_dump({"study": study.model_dump(mode="json", by_alias=True)}, sort_keys=False)
    write_atomic(folder / STUDY_FILE, text.encode())
    write_manifest(consortium, folder, study, now=now, lifetime=lifetime)
    consortium.note("run", run=folder.name, study=study.name, hospitals=list(study.hospitals.all))
    # Last: from now on the supervisor sees it.
    change(folder, lambda state: state)
    return folder


def find_run(consortium: Consortium, name: str | None, states: tuple[str, ...]) -> Path:
    """Return the folder of the run that is meant: by its name, or the only one in these states.

    Raises
    ------
    ConfigError
        If there is no such run, or there are several to choose from.
    """
    found = runs(consortium.runs)
    if name is not None:
        for folder in found:
            if folder.name == name:
                return folder
        raise ConfigError(
            f"There is no run {name}; there are "
            f"{', '.join(folder.name for folder in found) or 'none'}."
        )
    fitting = [folder for folder in found if read(folder).state in states]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(folder.name for folder in fitting)
    raise ConfigError(
        f"Several runs could be meant ({names}); name one."
        if fitting
        else f"There is no run that is {' or '.join(states)}; see `concors-server status`."
    )


def resume_run(
    consortium: Consortium, folder: Path, *, now: datetime, lifetime: timedelta
) -> State:
    """Have a run taken up again from its checkpoints, with the study file as it is now.

    Raises
    ------
    ConfigError
        If it is running or finished.
    """
    state = read(folder).state
    if state in ("running", "finished"):
        raise ConfigError(f"Run {folder.name} is {state}; there is nothing to resume.")
    study = load_study(folder / STUDY_FILE)
    write_manifest(consortium, folder, study, now=now, lifetime=lifetime)
    consortium.note("resume", run=folder.name)
    return change(folder, lambda old: replace(old, state="running", kills=(), sentence=""))


def stop_run(consortium: Consortium, folder: Path) -> State:
    """Have a run stopped; it can be resumed.

    Raises
    ------
    ConfigError
        If it is not running.
    """
    if read(folder).state != "running":
        raise ConfigError(f"Run {folder.name} is {read(folder).state}; it cannot be stopped.")
    consortium.note("stop", run=folder.name)
    return change(folder, lambda old: replace(old, state="stopped"))


def _new_folder(consortium: Consortium, study: str) -> Path:
    number = 1
    while (consortium.runs / f"{study}-{number}").exists():
        number += 1
    return make_private_dir(consortium.runs / f"{study}-{number}")
