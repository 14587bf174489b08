"""Weights trained elsewhere that a study begins from, named in it by their fingerprint."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from protocol.arrays import Arrays, fingerprint, layout
from protocol.config import Study
from protocol.errors import ConfigError

__all__ = ["begin_from", "hand_on", "starting_weights"]

STAGES = ("sort", "segment", "prognosis")


def begin_from(study: Study, trained: Path, run_dirs: Iterable[Path]) -> Study:
    """Return a study whose networks begin from the final weights of a finished run.

    Parameters
    ----------
    trained : Path
        Folder of the finished run; a stage it has no final weights of begins from random ones.
    run_dirs : iterable of Path
        Folders of the runs to come, which get a copy each.

    Raises
    ------
    ConfigError
        If the finished run has final weights of none of the study's stages.
    """
    found = {stage: trained / stage / "final.safetensors" for stage in STAGES}
    found = {s: path for s, path in found.items() if s in study.stages and path.is_file()}
    if not found:
        raise ConfigError(
            f"{trained.name} has no final weights of any stage of study {study.name}; name the "
            "folder of a run that was finished."
        )
    updates = {}
    for stage, path in found.items():
        arrays = _read(path, stage)
        for run_dir in run_dirs:
            kept = _place(run_dir, stage)
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_file(arrays, kept)
        section = getattr(study, stage)
        network = section.network.model_copy(update={"start": fingerprint(arrays)})
        updates[stage] = section.model_copy(update={"network": network})
    return study.model_copy(update=updates)


def hand_on(run_dir: Path, folder: Path) -> None:
    """Copy what a run begins from to the folder of a run that is derived from it."""
    if (run_dir / "start").is_dir():
        shutil.copytree(run_dir / "start", folder / "start", dirs_exist_ok=True)


def starting_weights(run_dir: Path, study: Study, stage: str, fresh: Arrays) -> Arrays:
    """Return what the training of a stage begins from.

    Parameters
    ----------
    fresh : Arrays
        The network's random weights, which also say what shapes it has.

    Raises
    ------
    ConfigError
        If the study names weights that are not in the run's folder ``start``, or are others, or do
        not fit the network.
    """
    wanted = getattr(study, stage).network.start
    if wanted is None:
        return fresh
    arrays = _read(_place(run_dir, stage), stage)
    if fingerprint(arrays) != wanted:
        raise ConfigError(
            f"The weights in start/{stage}.safetensors are not those that {stage}.network.start "
            "names; put the right file there, or correct the fingerprint."
        )
    if layout(arrays) != layout(fresh):
        raise ConfigError(
            f"The weights in start/{stage}.safetensors do not fit the network of the stage "
            f"{stage}; give the network the options it was trained with."
        )
    return {name: arrays[name] for name in fresh}


def _place(run_dir: Path, stage: str) -> Path:
    return run_dir / "start" / f"{stage}.safetensors"


def _read(path: Path, stage: str) -> Arrays:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"Weights for the stage {stage} cannot be read from {path.parent.name}/{path.name}; "
            "put a safetensors file there."
        ) from error
