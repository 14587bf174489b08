"""What an engine promises to the two apps, and what it asks of its caller.

The apps never know which engine runs them. They find their files in two ways, and an app looks
for the first before the second:

* deployment: the server in ``context.run_config["study-file"]`` and ``["run-dir"]`` (an empty
  string means "not given"), a client in ``context.node_config["site"]``;
* simulation: the server in the environment variables ``CONCORS_STUDY`` and ``CONCORS_RUN``, a
  client in entry ``context.node_config["partition-id"]`` of ``CONCORS_SITES``, a list of hospital
  directories joined by ``os.pathsep``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import ConfigError

__all__ = [
    "RUN_DIR_KEY",
    "RUN_VARIABLE",
    "SITES_VARIABLE",
    "SITE_KEY",
    "STUDY_KEY",
    "STUDY_VARIABLE",
    "check_inputs",
]

STUDY_VARIABLE = "CONCORS_STUDY"
RUN_VARIABLE = "CONCORS_RUN"
SITES_VARIABLE = "CONCORS_SITES"
STUDY_KEY = "study-file"
RUN_DIR_KEY = "run-dir"
SITE_KEY = "site"


def check_inputs(
    study_file: Path, run_dir: Path, sites: Sequence[Path]
) -> tuple[Path, Path, tuple[Path, ...]]:
    """Refuse inputs no engine could use; make the run directory.

    Parameters
    ----------
    study_file : Path
        The study's YAML file.
    run_dir : Path
        Where the server writes; made when it does not exist.
    sites : sequence of Path
        One directory per hospital, all different.

    Returns
    -------
    tuple
        The same three, as absolute paths.

    Raises
    ------
    ConfigError
        When the study file is missing, or a hospital directory is missing, stands twice, or has
        the path separator in its name.
    """
    if not study_file.is_file():
        raise ConfigError(f"There is no study file at {study_file}; give the path of a study YAML.")
    if not sites:
        raise ConfigError("No hospital directory was given; give at least one.")
    absolute = tuple(site.resolve() for site in sites)
    for site in absolute:
        if not site.is_dir():
            raise ConfigError(
                f"There is no hospital directory at {site}; make it or mend the path."
            )
        if os.pathsep in str(site):
            raise ConfigError(
                f"The hospital directory {site} has {os.pathsep!r} in its path, which separates "
                "directories in a list; rename it."
            )
    if len(set(absolute)) != len(absolute):
        raise ConfigError("A hospital directory was given twice; give each hospital once.")
    run_dir.mkdir(parents=True, exist_ok=True)
    return study_file.resolve(), run_dir.resolve(), absolute
