"""What a run keeps on disk after every round, so that it can be killed at any moment.

A checkpoint is two files: the arrays (safetensors) and a manifest (JSON) that holds their SHA-256.
Each is written beside its place, forced to disk and renamed; the manifest comes last, so it is the
moment the checkpoint exists. Nothing is ever overwritten in place.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from protocol.arrays import Arrays
from protocol.documents import check_keys, decode, encode
from protocol.errors import DataError, PayloadError

__all__ = ["Checkpoint", "Checkpoints", "hash_file"]

log = logging.getLogger(__name__)

MODEL, STATE = "model/", "state/"
KEYS = frozenset({"round", "binding", "history", "sha256"})


@dataclass(frozen=True)
class Checkpoint:
    """All that the next round needs.

    Attributes
    ----------
    round_index : int
        The round that was finished, counted from 1.
    arrays, state : Arrays
        The global model after it, and the strategy's state.
    history : list of dict
        One entry a round so far.
    binding : str
        Hash of the study and stage it belongs to.
    """

    round_index: int
    arrays: Arrays
    state: Arrays
    history: list[Any]
    binding: str


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _place(path: Path, write: Callable[[Path], None]) -> str:
    """Write a file atomically and return the hash of its bytes."""
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    _sync(temporary)
    digest = hash_file(temporary)
    temporary.replace(path)
    _sync(path.parent)
    return digest


class Checkpoints:
    """The checkpoints of one stage: ``round-00012.safetensors`` and ``.json``, ``final.*``.

    Parameters
    ----------
    directory : Path
        ``run_dir/<stage>``; made if absent.
    keep : int
        How many rounds stay on disk (2: the newest may turn out to be corrupt).
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self.directory = directory
        self.keep = keep
        directory.mkdir(parents=True, exist_ok=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove those that are no longer needed."""
        stem = self.directory / f"round-{checkpoint.round_index:05d}"
        named = {MODEL + name: array for name, array in checkpoint.arrays.items()}
        named |= {STATE + name: array for name, array in checkpoint.state.items()}
        manifest = {
            "round": checkpoint.round_index,
            "binding": checkpoint.binding,
            "history": checkpoint.history,
        }
        self._write(stem, named, manifest)
        for path in self._manifests()[: -self.keep]:
            # The manifest first: a model without a manifest is rubbish, not a broken checkpoint.
            path.unlink()
            path.with_suffix(".safetensors").unlink(missing_ok=True)

    def save_final(self, arrays: Arrays, manifest: dict[str, Any]) -> Path:
        """Write the finished model under its own names as ``final.safetensors`` and return it.

        Parameters
        ----------
        manifest : dict
            What stands beside it in ``final.json`` (study, stage, rounds); ``sha256`` is added.
        """
        return self._write(self.directory / "final", arrays, manifest)

    def name_card(self, sha256: str) -> None:
        """Write into ``final.json`` which model card describes the finished model."""
        path = self.directory / "final.json"
        manifest = decode(path.read_text(encoding="utf-8"), "Manifest final.json")
        text = encode(manifest | {"card": sha256}, "A checkpoint's manifest")
        _place(path, lambda temporary: _write_text(temporary, text))

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint whose bytes are those that were written, or None.

        Raises
        ------
        DataError
            If there are checkpoints and none is intact; starting over would lose them silently.
        """
        manifests = self._manifests()
        for path in reversed(manifests):
            try:
                return self._read(path)
            except (PayloadError, OSError, UnicodeDecodeError, SafetensorError) as error:
                log.warning("Checkpoint %s is damaged and left out: %s", path.stem, error)
        if manifests:
            raise DataError(
                f"None of the {len(manifests)} checkpoints in {self.directory.name} is intact; "
                "restore one from a backup, or start the study in a new run directory."
            )
        return None

    def _manifests(self) -> list[Path]:
        return sorted(self.directory.glob("round-*.json"))

    def _write(self, stem: Path, arrays: Arrays, manifest: dict[str, Any]) -> Path:
        path = stem.with_suffix(".safetensors")
        digest = _place(path, lambda temporary: save_file(arrays, temporary))
        text = encode(manifest | {"sha256": digest}, "A checkpoint's manifest")
        _place(stem.with_suffix(".json"), lambda temporary: _write_text(temporary, text))
        return path

    def _read(self, path: Path) -> Checkpoint:
        where = f"Manifest {path.name}"
        manifest = decode(path.read_text(encoding="utf-8"), where)
        check_keys(manifest, KEYS, where)
        model = path.with_suffix(".safetensors")
        if hash_file(model) != manifest["sha256"]:
            raise PayloadError(f"{where}: the model's hash differs; the file was cut or changed.")
        named = load_file(model)
        return Checkpoint(
            round_index=manifest["round"],
            arrays=_under(named, MODEL),
            state=_under(named, STATE),
            history=manifest["history"],
            binding=manifest["binding"],
        )


def _under(named: Arrays, prefix: str) -> Arrays:
    return {
        name.removeprefix(prefix): array
        for name, array in sorted(named.items())
        if name.startswith(prefix)
    }


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
