"""A hospital as one study sees it: its patients, split into those that train and those held out."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.cohort import Cohort, Patient, load_cohort
from client.holdout import held_out
from client.policy import held_to, load_policy
from client.pseudonyms import load_secret
from client.site import SiteConfig, load_site
from protocol.config import Preprocessing, Study
from protocol.errors import DataError

if TYPE_CHECKING:
    from shared_models.execution import Execution

__all__ = ["Hospital", "open_hospital"]


@dataclass(frozen=True)
class Hospital:
    """One hospital inside one study.

    Attributes
    ----------
    directory : Path
        Where ``site.yaml`` lies; everything the client writes stays below ``.concors`` in it.
    config : SiteConfig
        The hospital's own settings, which no message can change.
    cohorts : tuple of Cohort
        One, or one per member of a pooled archive.
    training, held_out : tuple of Patient
        The two sides of the study's internal split. A hospital that never trains in the study is
        validated on both.
    """

    directory: Path
    config: SiteConfig
    cohorts: tuple[Cohort, ...]
    training: tuple[Patient, ...]
    held_out: tuple[Patient, ...]

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def patients(self) -> tuple[Patient, ...]:
        return self.training + self.held_out

    @property
    def execution(self) -> "Execution":
        """Where and how precisely this hospital computes: its own decision."""
        # Here, as torch takes seconds to load, and many a question is answered without it.
        from shared_models.execution import Execution

        config = self.config
        return Execution.resolve(config.device, config.precision, config.threads, config.compile)

    @property
    def fingerprint(self) -> str:
        """Identity of the data, for naming what was computed from them."""
        return "-".join(cohort.fingerprint[:16] for cohort in self.cohorts)

    @property
    def data_hash(self) -> str:
        """What the audit log tells of the data: the same as long as they are, and nothing else.

        Keyed with the hospital's secret, so that nobody can try whether the data are those he
        thinks they are.
        """
        secret = load_secret(self.directory, self.config.secret)
        return hmac.new(secret, f"data/{self.fingerprint}".encode(), hashlib.sha256).hexdigest()

    def private_generator(self, purpose: str) -> np.random.Generator:
        """Return a generator that follows from the hospital's secret, so that no one else has it.

        The same purpose gives the same draws, run after run.
        """
        secret = load_secret(self.directory, self.config.secret)
        digest = hmac.new(secret, f"generator/{purpose}".encode(), hashlib.sha256).digest()
        return np.random.default_rng(int.from_bytes(digest, "big"))

    def workspace(self, study: Study) -> Path:
        """Return the folder for this study's intermediate results, making it if need be."""
        folder = self.directory / ".concors" / "studies" / study.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def open_hospital(
    directory: Path, study: Study, progress: Callable[[int, int], None] | None = None
) -> Hospital:
    """Open the hospital at ``directory`` for a study, reading its cache where that is current.

    Raises
    ------
    DataError
        If no patient is usable, or the site's files contradict each other.
    ConfigError
        If ``site.yaml`` is wrong.
    """
    config = load_site(directory)
    (directory / ".concors").mkdir(exist_ok=True)
    members = [(directory / member).resolve() for member in config.members] or [directory]
    cohorts = tuple(_cohort(member, study, progress) for member in members)
    training: list[Patient] = []
    aside: list[Patient] = []
    policy = load_policy(directory, config)
    private = policy.privacy is not None
    for cohort in cohorts:
        mask = held_out(cohort.patients, study.holdout, study.seed, cohort.site, each_alone=private)
        training += [p for p, out in zip(cohort.patients, mask, strict=True) if not out]
        aside += [p for p, out in zip(cohort.patients, mask, strict=True) if out]
    if not training:
        raise DataError(
            f"{config.name} has no usable patient; run concors-client check to see why each series "
            "was refused."
        )
    return Hospital(directory, held_to(config, policy), cohorts, tuple(training), tuple(aside))


def _cohort(directory: Path, study: Study, progress: Callable[[int, int], None] | None) -> Cohort:
    # A process that serves many rounds (simulation) reads each cohort's cache once.
    if progress is None:
        config = load_site(directory)
        if config.images is None and config.outcomes is not None:
            return _table_in_memory(
                directory, study.preprocessing, _state(directory / config.outcomes.path), config
            )
        return _in_memory(directory, study.preprocessing)
    return load_cohort(directory, study.preprocessing, progress)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


_TABLES: dict[Path, tuple[object, Cohort]] = {}


def _table_in_memory(
    directory: Path,
    preprocessing: Preprocessing,
    state: tuple[int, int] | None,
    config: SiteConfig,
) -> Cohort:
    # A table is small where a cohort of images is not, and there may be a hundred hospitals of
    # them in one process: each is kept until its files change.
    key = (state, config)
    if directory not in _TABLES or _TABLES[directory][0] != key:
        _TABLES[directory] = (key, load_cohort(directory, preprocessing))
    return _TABLES[directory][1]


@lru_cache(maxsize=16)
def _in_memory(directory: Path, preprocessing: Preprocessing) -> Cohort:
    return load_cohort(directory, preprocessing)
